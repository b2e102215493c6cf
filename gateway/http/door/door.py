"""A request from its body to its answer, whole or streamed; what is asked and told is the API's."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.access.auth import bearer
from gateway.answer.events import AnswerEvent
from gateway.http.body import body_size, parse_json, read_body
from gateway.http.disconnects import client_gone, while_connected
from gateway.http.door.places import naming, renamed
from gateway.http.door.stream import LiveResponse
from gateway.http.door.telling import Asked, Counted, Json, Telling
from gateway.http.encoding import content_encoding, decoded
from gateway.service import ChatService, OpenRequest
from gateway.threads import Threads
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Events = AsyncGenerator[tuple[int, AnswerEvent], None]


class Door:
    """Serves requests of one answer each; one object per process, for all APIs but chat's."""

    def __init__(
        self,
        service: ChatService,
        *,
        threads: Threads,
        max_body_bytes: int,
        slow_client_s: float,
    ) -> None:
        self.service = service
        self._threads = threads
        self._max_body_bytes = max_body_bytes
        self._slow_client_s = slow_client_s

    async def answer(
        self, request: Request, read: Callable[[Json, OpenRequest], Asked | Json]
    ) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Args:
            request: Its body is not read yet.
            read: Makes a question of the body's JSON object, or an answer that needs no model;
                runs in a worker thread.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        async with AsyncExitStack() as held:
            opened = held.enter_context(self._opened(request))
            asked = await self._read(request, opened, read)
            if not isinstance(asked, Asked):
                opened.ended()
                return JSONResponse(asked)
            telling = asked.telling
            events = opened.answer(asked.question)
            await held.enter_async_context(aclosing(events))
            with naming(asked.names):
                if not asked.question.stream:
                    whole = _whole(events, telling)
                    return JSONResponse(await while_connected(request.receive, whole))
                # Nothing is sent before the first tokens are there, so that a failure until then,
                # say in the vision tier, still has a status of its own.
                first = await while_connected(request.receive, _first(events))
            pieces = _pieces(first, events, asked, opened)
            return LiveResponse(pieces, held.pop_all(), content_type=telling.content_type)

    async def count(self, request: Request, read: Callable[[Json, OpenRequest], Counted]) -> int:
        """The tokens of a request's prompt, its images included; nothing is encoded.

        Raises:
            ServiceError: the request is refused.
        """
        with self._opened(request) as opened:
            counted = await self._read(request, opened, read)
            with naming(counted.names):
                counting = opened.prepare(counted.model, counted.conversation)
                prompt = await while_connected(request.receive, counting)
            return len(prompt.input_ids)

    async def body(self, request: Request) -> Json:
        """The JSON object of a request that asks for nothing to be answered.

        Raises:
            ServiceError: the body is refused.
        """
        with self._opened(request) as opened:
            given = await self._read(request, opened, lambda given, _: given)
            opened.ended()
            return given

    @contextmanager
    def _opened(self, request: Request) -> Iterator[OpenRequest]:
        name, key = request.state.request_id, bearer(request.headers)
        with self.service.request("http", request_id=name, authorization=key) as opened:
            yield opened

    async def _read(
        self, request: Request, opened: OpenRequest, read: Callable[[Json, OpenRequest], T]
    ) -> T:
        encoding = content_encoding(request.headers.getlist("content-encoding"))
        body = await self._body(request, opened, is_encoded=bool(encoding))
        decode = partial(decoded, encoding=encoding, limit=self._max_body_bytes)
        return await self._threads.run(lambda: read(_object(parse_json(decode(body))), opened))

    async def _body(self, request: Request, opened: OpenRequest, *, is_encoded: bool) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise InvalidRequest("the Content-Type must be application/json", param=None)
        size = body_size(request.headers.get("content-length"), limit=self._max_body_bytes)
        # Where nothing says how large it will be, the place is as large as a body may be.
        opened.take_place(self._max_body_bytes if size is None or is_encoded else size)
        try:
            return await read_body(
                request.stream(),
                limit=self._max_body_bytes,
                patience_s=self._slow_client_s,
                by_s=opened.whole_by_s,
            )
        except ClientDisconnect as error:
            raise client_gone() from error


def _object(parsed: object) -> Json:
    if not isinstance(parsed, dict):
        raise InvalidRequest("the body must be a JSON object")
    return parsed


async def _first(events: Events) -> tuple[int, AnswerEvent]:
    return await anext(events)


async def _whole(events: Events, telling: Telling) -> Json:
    async for _, event in events:
        for _said in telling.add(event):
            pass
    return telling.whole()


async def _pieces(
    first: tuple[int, AnswerEvent], events: Events, asked: Asked, opened: OpenRequest
) -> AsyncGenerator[bytes, None]:
    """What is sent of a streamed answer.

    A failure ends it in the API's own way of saying so, so that half an answer can never pass for
    a whole one.
    """
    telling = asked.telling
    try:
        for said in (*telling.begin(), *telling.add(first[1])):
            yield telling.encode(said)
        async for _, event in events:
            for said in telling.add(event):
                yield telling.encode(said)
    except ServiceError as error:
        opened.failed(error.reason)
        for said in telling.failed(renamed(error, asked.names)):
            yield telling.encode(said)
    except Exception:  # The HTTP edge: a bug in one answer must not show its text to the client.
        logger.exception("unhandled error in a stream")
        opened.failed(Reason.INTERNAL)
        for said in telling.failed(InternalError("internal error")):
            yield telling.encode(said)
    else:
        if telling.last:
            yield telling.last
