"""A streamed answer, whose client may go at any time."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.disconnects import while_connected
from protos.wire.errors import Reason, ServiceError

# Neither caches nor proxies may hold a piece back.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class LiveResponse(StreamingResponse):
    """Sends pieces as they come; closes what it holds when all is sent, or the client has gone."""

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], held: AsyncExitStack, *, content_type: str
    ) -> None:
        super().__init__(pieces, headers=_HEADERS, media_type=content_type)
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
