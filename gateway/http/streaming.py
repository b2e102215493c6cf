"""A streamed answer, most often as server-sent events, whose client may go at any time."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.answer.events import AnswerEvent
from gateway.http import sse
from gateway.http.disconnects import while_connected
from gateway.http.errors import error_body
from gateway.service import OpenRequest
from protos.wire.errors import InternalError, Reason, ServiceError

logger = logging.getLogger(__name__)

# Neither caches nor proxies may hold a piece back.
_LIVE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Events = AsyncGenerator[tuple[int, AnswerEvent], None]


class EventStream(StreamingResponse):
    """A streamed answer; closes what it holds when it is sent, or the client has gone."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        held: AsyncExitStack,
        *,
        headers: Mapping[str, str],
        content_type: str = sse.CONTENT_TYPE,
    ) -> None:
        super().__init__(pieces, headers={**_LIVE, **headers}, media_type=content_type)
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's own looks for a client that has gone only when it sends something.
        try:
            async with self._held, aclosing(self._pieces):
                await while_connected(scope, self.stream_response(send))
        except ServiceError as error:
            if error.reason is not Reason.CANCELLED:
                raise


async def encoded(
    chunks: AsyncIterator[Mapping[str, Any]], opened: OpenRequest
) -> AsyncGenerator[bytes, None]:
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


async def first_of(events: Events) -> tuple[int, AnswerEvent]:
    """The first event.

    Nothing is sent before it is there, so that a failure until then, say in the vision tier,
    still has a status of its own.
    """
    return await anext(events)


async def chained(
    first: tuple[int, AnswerEvent], events: Events
) -> AsyncIterator[tuple[int, AnswerEvent]]:
    """All events, the first of which was taken already."""
    yield first
    async for pair in events:
        yield pair
