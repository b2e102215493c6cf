"""The routes of /v1/responses."""

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.access.auth import bearer
from gateway.answer.detokenize import TokenBytes
from gateway.http.door.door import Door
from gateway.http.door.telling import Asked, Counted, Json
from gateway.http.door.typed import Given
from gateway.http.responses.schemas import CreateResponse, InputBody
from gateway.http.responses.store import Kept, ResponseStore
from gateway.http.responses.telling import ResponseTelling
from gateway.http.responses.translate import about, to_conversation, to_question, wants_logprobs
from gateway.request.conversation import Message
from gateway.request.sampling import with_presets
from gateway.service import OpenRequest
from protos.wire.errors import Reason, ServiceError


class Responses:
    """Serves the routes; one object per process."""

    def __init__(self, door: Door, *, token_bytes: TokenBytes, store: ResponseStore) -> None:
        self._door = door
        self._token_bytes = token_bytes
        self._store = store

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/responses", self._create, methods=["POST"]),
            Route("/v1/responses/input_tokens", self._count, methods=["POST"]),
            # One route, because `Allow` tells the methods of one.
            Route("/v1/responses/{name}", self._one, methods=["GET", "DELETE"]),
        ]

    async def _create(self, request: Request) -> Response:
        return await self._door.answer(request, self._asked)

    async def _count(self, request: Request) -> Response:
        return await self._door.count(
            request,
            self._counted,
            lambda count: {"object": "response.input_tokens", "input_tokens": count},
        )

    async def _one(self, request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "DELETE":
            return self._deleted(request, name)
        return JSONResponse(self._kept(self._tenant(request), name, param="response_id").body)

    def _deleted(self, request: Request, name: str) -> Response:
        if not self._store.delete(self._tenant(request), name):
            raise _not_kept(param="response_id")
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    def _tenant(self, request: Request) -> bytes:
        service = self._door.service
        return service.tenants.salt(service.authorize(bearer(request.headers)).key, None)

    def _kept(self, tenant: bytes, name: str, *, param: str) -> Kept:
        kept = self._store.get(tenant, name)
        if kept is None:
            raise _not_kept(param=param)
        return kept

    def _asked(self, given: Given, opened: OpenRequest) -> Asked:
        body = given.validated(CreateResponse)
        tenant = opened.tenant
        conversation, names, lasting = to_conversation(
            body,
            given.at("input"),
            self._earlier(tenant, body),
            partial(self._store.item, tenant),
        )
        question = to_question(body, conversation)
        served = self._door.service.served
        stored = self._store.keeps and body.store is not False

        def keep(told: Json, answer: Message) -> None:
            if stored:
                self._store.put(tenant, told, (*lasting, answer))

        telling = ResponseTelling(
            about(
                body,
                with_presets(question.sampling, served.presets),
                model=served.name,
                stored=stored,
            ),
            token_bytes=self._token_bytes if wants_logprobs(body) else None,
            keep=keep,
        )
        return Asked(
            question=question,
            telling=telling,
            names=names,
            may_lose_turns=body.truncation == "auto",
        )

    def _counted(self, given: Given, opened: OpenRequest) -> Counted:
        body = given.validated(InputBody)
        tenant = opened.tenant
        conversation, names, _ = to_conversation(
            body,
            given.at("input"),
            self._earlier(tenant, body),
            partial(self._store.item, tenant),
        )
        return Counted(model=body.model or "", conversation=conversation, names=names)

    def _earlier(self, tenant: bytes, body: InputBody) -> tuple[Message, ...]:
        name = body.previous_response_id
        if name is None:
            return ()
        return self._kept(tenant, name, param="previous_response_id").messages


def _not_kept(*, param: str) -> ServiceError:
    return ServiceError(
        "no response of that id is kept here; old ones go when there are too many",
        reason=Reason.NOT_FOUND,
        param=param,
    )
