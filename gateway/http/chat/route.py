"""POST /v1/chat/completions: a body in, an answer out, whole or streamed."""

import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import State
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gateway.access.admission import Admission
from gateway.access.served import ServedModel
from gateway.access.tenants import Tenants
from gateway.answer.events import AnswerEnd, AnswerEvent, AnswerText
from gateway.http import sse
from gateway.http.body import body_size, parse_json, read_body
from gateway.http.chat.completions import Completions
from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import (
    check_supported,
    to_constraint,
    to_conversation,
    to_reporting,
    to_sampling,
    to_stopping,
)
from gateway.http.disconnects import client_gone, while_connected
from gateway.http.errors import error_body, from_validation
from gateway.pipeline import Pipeline
from gateway.record import Record, recording
from gateway.request.constraint import ConstraintSpec
from gateway.request.conversation import Conversation
from gateway.request.deadlines import Patience
from gateway.request.job import ChatJob
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError

logger = logging.getLogger(__name__)

Events = AsyncGenerator[tuple[int, AnswerEvent], None]


class ChatCompletions:
    """Serves the route; one object per process."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        served: ServedModel,
        admission: Admission,
        patience: Patience,
        tenants: Tenants,
        max_body_bytes: int,
        slow_client_s: float,
    ) -> None:
        self._pipeline = pipeline
        self._served = served
        self._admission = admission
        self._patience = patience
        self._tenants = tenants
        self._max_body_bytes = max_body_bytes
        self._slow_client_s = slow_client_s

    async def serve(self, request: Request) -> Response:
        """Answers one request. What it holds is freed when the response has been sent.

        Raises:
            ServiceError: the request failed before anything was sent.
        """
        arrived_s = time.monotonic()
        async with AsyncExitStack() as held:
            record = held.enter_context(recording("http", request.state.request_id))
            wanted, conversation, constraint = await self._pipeline.in_thread(
                partial(_parsed, await self._body(request, held, arrived_s))
            )
            self._served.check(wanted.model)
            job = self._job(request.state, wanted, conversation, constraint, arrived_s)
            events = self._pipeline.answer(job)
            await held.enter_async_context(aclosing(events))
            completions = Completions(
                request_id=job.request_id,
                model=self._served.name,
                fingerprint=self._served.fingerprint,
                token_bytes=self._pipeline.token_bytes,
            )
            if not wanted.stream:
                whole = _whole(events, completions, record, with_logprobs=job.reporting.logprobs)
                return JSONResponse(await while_connected(request.receive, whole))
            # Nothing is sent before the first tokens are there, so that a failure until then,
            # say in the vision tier, still has a status of its own.
            first = await while_connected(request.receive, _first(events))
            pieces = _stream(first, events, completions, record, wanted)
            return EventStream(pieces, held.pop_all())

    async def _body(self, request: Request, held: AsyncExitStack, arrived_s: float) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise InvalidRequest("the Content-Type must be application/json", param=None)
        size = body_size(request.headers.get("content-length"), limit=self._max_body_bytes)
        held.enter_context(self._admission.slot(self._max_body_bytes if size is None else size))
        try:
            return await read_body(
                request.stream(),
                limit=self._max_body_bytes,
                patience_s=self._slow_client_s,
                by_s=arrived_s + self._patience.request_s,
            )
        except ClientDisconnect as error:
            raise client_gone() from error

    def _job(
        self,
        state: State,
        wanted: ChatCompletionRequest,
        conversation: Conversation,
        constraint: ConstraintSpec | None,
        arrived_s: float,
    ) -> ChatJob:
        return ChatJob(
            request_id=state.request_id,
            conversation=conversation,
            sampling=to_sampling(wanted, self._served.generation),
            stopping=to_stopping(wanted),
            reporting=to_reporting(wanted),
            constraint=constraint,
            cache_salt=self._tenants.salt(state.api_key, wanted.cache_salt),
            choice_count=1 if wanted.n is None else wanted.n,
            arrived_s=arrived_s,
            deadline=self._patience.deadline(arrived_s, stream=bool(wanted.stream)),
        )


class EventStream(Response):
    """A streamed answer; closes what it holds when it is sent, or the client has gone."""

    media_type = sse.CONTENT_TYPE

    def __init__(self, pieces: AsyncGenerator[bytes, None], held: AsyncExitStack) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._held, aclosing(self._pieces):
                await while_connected(receive, self._send_all(send))
        except ServiceError as error:
            if error.reason is not Reason.CANCELLED:
                raise

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _parsed(body: bytes) -> tuple[ChatCompletionRequest, Conversation, ConstraintSpec | None]:
    """The request in a body; runs in a worker thread."""
    try:
        wanted = ChatCompletionRequest.model_validate(parse_json(body))
    except ValidationError as error:
        raise from_validation(error) from None
    check_supported(wanted)
    return wanted, to_conversation(wanted), to_constraint(wanted)


async def _first(events: Events) -> tuple[int, AnswerEvent]:
    return await anext(events)


async def _whole(
    events: Events, completions: Completions, record: Record, *, with_logprobs: bool
) -> dict[str, Any]:
    texts: defaultdict[int, list[AnswerText]] = defaultdict(list)
    ends: dict[int, AnswerEnd] = {}
    async for index, event in events:
        if isinstance(event, AnswerEnd):
            ends[index] = event
            record.ended(event)
        else:
            texts[index].append(event)
    return completions.whole(texts, ends, with_logprobs=with_logprobs)


async def _stream(
    first: tuple[int, AnswerEvent],
    events: Events,
    completions: Completions,
    record: Record,
    wanted: ChatCompletionRequest,
) -> AsyncGenerator[bytes, None]:
    """The events of an answer as server-sent events.

    A failure ends the stream with an `error` event and neither a finish_reason nor [DONE], so
    that half an answer can never pass for a whole one.
    """
    try:
        async for piece in _chunks(_chain(first, events), completions, record, wanted):
            yield sse.data(piece)
    except ServiceError as error:
        record.failed(error.reason)
        yield sse.error(error_body(error))
    except Exception:  # The HTTP edge: a bug in one answer must not show its text to the client.
        logger.exception("unhandled error in a stream")
        record.failed(Reason.INTERNAL)
        yield sse.error(error_body(InternalError("internal error")))
    else:
        yield sse.DONE


async def _chunks(
    events: AsyncIterator[tuple[int, AnswerEvent]],
    completions: Completions,
    record: Record,
    wanted: ChatCompletionRequest,
) -> AsyncIterator[dict[str, Any]]:
    begun: set[int] = set()
    ends: list[AnswerEnd] = []
    with_logprobs = bool(wanted.logprobs)
    async for index, event in events:
        if index not in begun:
            begun.add(index)
            yield completions.role(index)
        if isinstance(event, AnswerEnd):
            ends.append(event)
            record.ended(event)
            yield completions.end(index, event)
        elif event.text or with_logprobs:
            yield completions.text(index, event, with_logprobs=with_logprobs)
    if wanted.stream_options is not None and wanted.stream_options.include_usage:
        yield completions.usage(ends)


async def _chain(
    first: tuple[int, AnswerEvent], events: Events
) -> AsyncIterator[tuple[int, AnswerEvent]]:
    yield first
    async for pair in events:
        yield pair
