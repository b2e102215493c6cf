"""One HTTP request and its answer, as ASGI has them."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from gateway.http.disconnects import EXTENSION, Departure

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_WITHOUT_BODY = (204, 304)
_BUG = b"Internal Server Error"


class Exchange:
    """A request at work on its connection.

    Args:
        scope: ASGI's, of the request.
        transport: The connection.
        flow: Whether it may be written to; is told when more may be read.
        common: Headers of every answer.
        is_last: Whether the connection ends with the answer.
        asks_leave: Whether the client waits for leave before it sends the body.
        is_leaving: Whether every connection is to end with its answer by now.
        on_end: Called when the answer is complete.

    Attributes:
        is_over: Whether the answer is complete.
        has_begun: Whether some of it was sent.
        is_last: As above; an answer may still become the last one.
    """

    def __init__(
        self,
        scope: Scope,
        transport: asyncio.Transport,
        flow: FlowControl,
        *,
        common: Sequence[Header],
        is_last: bool,
        asks_leave: bool,
        is_leaving: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self.is_over = False
        self.has_begun = False
        self.is_last = is_last
        self._scope = scope
        self._transport = transport
        self._flow = flow
        self._common = common
        self._asks_leave = asks_leave
        self._is_leaving = is_leaving
        self._on_end = on_end
        self._departure = Departure()
        scope["extensions"] = {EXTENSION: self._departure}
        self._body = bytearray()
        self._has_more = True
        self._news = asyncio.Event()  # of the body, or of the end
        # Of the answer's body:
        self._is_sent = scope["method"] != "HEAD"
        self._is_chunked = False
        self._left: int | None = None  # bytes that are announced and not sent

    def body_came(self, data: bytes) -> None:
        """Some of the request's body is here; much of it makes the client wait."""
        if self.is_over:
            return
        self._body += data
        if len(self._body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._news.set()

    def body_ended(self) -> None:
        """All of the request's body is here."""
        self._has_more = False
        self._news.set()

    def lost(self) -> None:
        """The connection is gone."""
        if not (self.is_over or self._departure.has_happened):
            self._departure.happens()
        self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Has the request answered; never raises."""
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException:  # The server's edge: what gets here is a bug, or the process's end.
            logger.exception("unhandled error in an answer")
            await self._end_somehow()
            return
        if not (self.is_over or self._departure.has_happened):
            logger.error("an answer was not completed")
            await self._end_somehow()

    async def _end_somehow(self) -> None:
        if self.has_begun:
            self._transport.close()
            return
        length = str(len(_BUG)).encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", length)]
        self.is_last = True
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": _BUG})

    async def receive(self) -> Message:
        """ASGI's: some of the body, or that the client has gone or has its answer."""
        if self._asks_leave and not self._transport.is_closing():
            self._asks_leave = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not (self._departure.has_happened or self.is_over):
            self._flow.resume_reading()
            await self._news.wait()
            self._news.clear()
        if self._departure.has_happened or self.is_over:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self._has_more}

    async def send(self, message: Message) -> None:
        """ASGI's: the head of the answer, or some of its body; waits while the client reads."""
        if self._flow.write_paused and not self._departure.has_happened:
            await self._flow.drain()
        if self._departure.has_happened:
            return
        if not self.has_begun:
            self._begin(message["status"], message.get("headers", ()))
        elif self.is_over:
            raise RuntimeError("the answer is complete already")
        else:
            self._go_on(message.get("body", b""), has_more=message.get("more_body", False))

    def _begin(self, status: int, headers: Sequence[Header]) -> None:
        """Writes the head; what the body's end is told by depends on its headers."""
        self.has_begun, self._asks_leave = True, False
        lines = [STATUS_LINES[status]]
        closes = False
        for name, value in (*self._common, *headers):
            lines.append(b"%b: %b\r\n" % (name, value))
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection":
                closes = closes or value.lower() == b"close"
        self._is_sent = self._is_sent and status not in _WITHOUT_BODY
        if self._is_sent and self._left is None:
            self._is_chunked = self._scope["http_version"] != "1.0"
            self.is_last = self.is_last or not self._is_chunked  # its end is then the body's
            if self._is_chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        self.is_last = self.is_last or closes or self._is_leaving()
        if self.is_last and not closes:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise RuntimeError("a header of the answer holds a line break")
        self._transport.write(head + b"\r\n")

    def _go_on(self, body: bytes, *, has_more: bool) -> None:
        if self._left is not None and self._is_sent:
            self._left -= len(body)
            if self._left < 0 or (self._left and not has_more):
                raise RuntimeError("the answer's body is not as long as its head says")
        if self._is_chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = body if has_more else body + b"0\r\n\r\n"
        if body and self._is_sent:
            self._transport.write(body)
        if has_more:
            return
        self.is_over = True
        self._news.set()
        if self.is_last:
            self._transport.close()
        self._on_end()
