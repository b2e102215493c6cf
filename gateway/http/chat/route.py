"""POST /v1/chat/completions: a body in, an answer out, whole or streamed."""

import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.access.auth import AUTHORIZATION
from gateway.answer.detokenize import TokenBytes
from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerPiece,
    AnswerThought,
)
from gateway.http import sse
from gateway.http.body import body_size, parse_json, read_body
from gateway.http.chat.completions import Completions, Json
from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import to_question
from gateway.http.disconnects import client_gone, while_connected
from gateway.http.encoding import content_encoding, decoded
from gateway.http.errors import error_body, from_validation
from gateway.request.job import Question
from gateway.service import ChatService, OpenRequest
from gateway.threads import Threads
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError

logger = logging.getLogger(__name__)

Events = AsyncGenerator[tuple[int, AnswerEvent], None]


class ChatCompletions:
    """Serves the route; one object per process."""

    def __init__(
        self,
        service: ChatService,
        *,
        threads: Threads,
        token_bytes: TokenBytes,
        max_body_bytes: int,
        slow_client_s: float,
    ) -> None:
        self._service = service
        self._threads = threads
        self._token_bytes = token_bytes
        self._max_body_bytes = max_body_bytes
        self._slow_client_s = slow_client_s

    async def serve(self, request: Request) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        async with AsyncExitStack() as held:
            name = request.state.request_id
            authorization = request.headers.get(AUTHORIZATION)
            opened = held.enter_context(
                self._service.request("http", request_id=name, authorization=authorization)
            )
            encoding = content_encoding(request.headers.getlist("content-encoding"))
            body = await self._body(request, opened, is_encoded=bool(encoding))
            decode = partial(decoded, encoding=encoding, limit=self._max_body_bytes)
            wanted, question = await self._threads.run(lambda: _parsed(decode(body)))
            events = opened.answer(question)
            await held.enter_async_context(aclosing(events))
            completions = Completions(
                request_id=name,
                model=self._service.served.name,
                fingerprint=self._service.served.fingerprint,
                token_bytes=self._token_bytes,
                with_logprobs=question.reporting.logprobs,
                with_usage=_wants_usage(wanted),
            )
            if not question.stream:
                whole = _whole(events, completions)
                return JSONResponse(await while_connected(request.receive, whole))
            # Nothing is sent before the first tokens are there, so that a failure until then,
            # say in the vision tier, still has a status of its own.
            first = await while_connected(request.receive, _first(events))
            chunks = _chunks(_chain(first, events), completions, wanted)
            return EventStream(_stream(chunks, opened), held.pop_all())

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


class EventStream(StreamingResponse):
    """A streamed answer; closes what it holds when it is sent, or the client has gone."""

    media_type = sse.CONTENT_TYPE

    def __init__(self, pieces: AsyncGenerator[bytes, None], held: AsyncExitStack) -> None:
        super().__init__(pieces, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's own looks for a client that has gone only when it sends something.
        try:
            async with self._held, aclosing(self._pieces):
                await while_connected(receive, self.stream_response(send))
        except ServiceError as error:
            if error.reason is not Reason.CANCELLED:
                raise


def _parsed(body: bytes) -> tuple[ChatCompletionRequest, Question]:
    """The request in a body; runs in a worker thread."""
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise InvalidRequest('the body must be a JSON object, as in {"messages": [...]}')
    try:
        wanted = ChatCompletionRequest.model_validate(parsed)
    except ValidationError as error:
        raise from_validation(error) from None
    return wanted, to_question(wanted)


async def _first(events: Events) -> tuple[int, AnswerEvent]:
    return await anext(events)


async def _whole(events: Events, completions: Completions) -> Json:
    pieces: defaultdict[int, list[AnswerPiece]] = defaultdict(list)
    ends: dict[int, AnswerEnd] = {}
    async for index, event in events:
        if isinstance(event, AnswerEnd):
            ends[index] = event
        else:
            pieces[index].append(event)
    return completions.whole(pieces, ends)


async def _stream(chunks: AsyncIterator[Json], opened: OpenRequest) -> AsyncGenerator[bytes, None]:
    """The chunks of an answer as server-sent events.

    A failure ends the stream with an `error` event and neither a finish_reason nor [DONE], so
    that half an answer can never pass for a whole one.
    """
    try:
        async for chunk in chunks:
            yield sse.data(chunk)
    except ServiceError as error:
        opened.failed(error.reason)
        yield sse.error(error_body(error))
    except Exception:  # The HTTP edge: a bug in one answer must not show its text to the client.
        logger.exception("unhandled error in a stream")
        opened.failed(Reason.INTERNAL)
        yield sse.error(error_body(InternalError("internal error")))
    else:
        yield sse.DONE


async def _chunks(
    events: AsyncIterator[tuple[int, AnswerEvent]],
    completions: Completions,
    wanted: ChatCompletionRequest,
) -> AsyncIterator[Json]:
    begun: set[int] = set()
    ends: list[AnswerEnd] = []
    async for index, event in events:
        if index not in begun:
            begun.add(index)
            yield completions.role(index)
        if isinstance(event, AnswerEnd):
            ends.append(event)
            yield completions.end(index, event)
        elif isinstance(event, AnswerThought):
            if event.text:
                yield completions.thought(index, event)
        elif isinstance(event, AnswerCall):
            for chunk in completions.call(index, event):
                yield chunk
        elif event.text or wanted.logprobs:
            yield completions.text(index, event)
    if _wants_usage(wanted):
        yield completions.usage(ends)


def _wants_usage(wanted: ChatCompletionRequest) -> bool:
    return bool(wanted.stream_options is not None and wanted.stream_options.include_usage)


async def _chain(
    first: tuple[int, AnswerEvent], events: Events
) -> AsyncIterator[tuple[int, AnswerEvent]]:
    yield first
    async for pair in events:
        yield pair
