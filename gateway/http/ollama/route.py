"""The routes of /api."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.answer.detokenize import TokenBytes
from gateway.http.door.door import Door
from gateway.http.door.places import Names
from gateway.http.door.telling import Asked, Json
from gateway.http.door.typed import Given
from gateway.http.ollama.models import API_VERSION, ModelFacts
from gateway.http.ollama.schemas import Asking, ChatBody, GenerateBody, ShowBody
from gateway.http.ollama.telling import OllamaTelling, loaded
from gateway.http.ollama.translate import (
    chat_conversation,
    generate_conversation,
    model_name,
    to_question,
)
from gateway.request.conversation import Conversation
from gateway.service import OpenRequest


class Ollama:
    """Serves the routes; one object per process."""

    def __init__(self, door: Door, *, token_bytes: TokenBytes, facts: ModelFacts) -> None:
        self._door = door
        self._token_bytes = token_bytes
        self._facts = facts

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/api/chat", self._chat, methods=["POST"]),
            Route("/api/generate", self._generate, methods=["POST"]),
            Route("/api/show", self._show, methods=["POST"]),
            Route("/api/tags", self._tags, methods=["GET"]),
            Route("/api/version", self._version, methods=["GET"]),
        ]

    async def _chat(self, request: Request) -> Response:
        return await self._door.answer(request, self._chat_asked)

    async def _generate(self, request: Request) -> Response:
        return await self._door.answer(request, self._generate_asked)

    async def _show(self, request: Request) -> Response:
        return await self._door.answer(request, self._shown)

    async def _tags(self, _: Request) -> Response:
        return JSONResponse(self._facts.listed())

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": API_VERSION})

    def _shown(self, given: Given, _: OpenRequest) -> Asked | Json:
        body = given.validated(ShowBody)
        self._door.service.served.check(model_name(body.model or body.name))
        return self._facts.shown()

    def _chat_asked(self, given: Given, _: OpenRequest) -> Asked | Json:
        body = given.validated(ChatBody)
        if not body.messages:
            return self._loaded(body, chats=True)
        return self._asked(body, *chat_conversation(body), chats=True)

    def _generate_asked(self, given: Given, _: OpenRequest) -> Asked | Json:
        body = given.validated(GenerateBody)
        if not (body.prompt or body.images):
            return self._loaded(body, chats=False)
        return self._asked(body, *generate_conversation(body), chats=False)

    def _loaded(self, body: Asking, *, chats: bool) -> Json:
        self._door.service.served.check(model_name(body.model))
        return loaded(body.model or self._door.service.served.name, chats=chats)

    def _asked(
        self,
        body: Asking,
        conversation: Conversation,
        names: Names,
        *,
        chats: bool,
    ) -> Asked:
        telling = OllamaTelling(
            model=body.model or self._door.service.served.name,
            chats=chats,
            token_bytes=self._token_bytes if body.logprobs else None,
        )
        question = to_question(body, conversation)
        return Asked(question=question, telling=telling, names=names)
