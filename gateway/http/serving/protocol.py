"""HTTP/1.1 on one connection: its bytes become requests, and slow clients lose it.

llhttp, which Node.js is built on, reads; what it leaves to its users is bounded here: the bytes of
a head, of a chunk's line and of trailers, and the time they may take.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway.http.serving.exchange import STATUS_LINES, Exchange

_REFUSAL = b"Invalid HTTP request received."
_REFUSED = STATUS_LINES[400] + (
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    % (len(_REFUSAL), _REFUSAL)
)

_FRAMING = (b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a client may take.

    Attributes:
        max_header_bytes: Of a request's headers, and of whatever else is no body, beyond what comes
            in one piece.
        slow_client_s: For a head, or without reading.
        idle_s: Between two requests.
    """

    max_header_bytes: int
    slow_client_s: float
    idle_s: float = 5.0


class Protocol(asyncio.Protocol):
    """One connection; the server's state knows it while it is open.

    Args:
        app: Answers requests.
        state: Of the server.
        patience: With the client.
        is_leaving: Whether the server is about to end, and each answer is its connection's last.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: ServerState,
        patience: Patience,
        is_leaving: Callable[[], bool],
    ) -> None:
        self._app = app
        self._state = state
        self._patience = patience
        self._is_leaving = is_leaving
        self._parser = self._new_parser()
        self._at_work: Exchange | None = None
        self._read: Exchange | None = None  # the one whose body is being read
        self._waiting: deque[Exchange] = deque()  # sent before the one before was answered
        self._unfinished = 0  # bytes since a head or a piece of a body was complete
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._asks_leave = False
        self._is_declining = False

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # What follows a request that is its connection's last is no reason not to answer that.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio's."""
        self._transport = transport
        self._flow = FlowControl(transport)
        self._addresses = {
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "scheme": "https" if is_ssl(transport) else "http",
        }
        # Aborting, because closing would wait for the client to read what is buffered.
        self._head_due = Alarm(self._patience.slow_client_s, transport.abort)
        self._reading_due = Alarm(self._patience.slow_client_s, transport.abort)
        self._idle = Alarm(self._patience.idle_s, transport.close)
        self._head_due.set()
        self._state.connections.add(self)  # type: ignore[arg-type]  # it knows uvicorn's own

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._state.connections.discard(self)
        for alarm in (self._head_due, self._reading_due, self._idle):
            alarm.clear()
        for exchange in (self._at_work, *self._waiting):
            if exchange is not None:
                exchange.lost()
        self._flow.resume_writing()
        del self._parser  # which holds on to this one

    def pause_writing(self) -> None:
        """asyncio's: the client reads more slowly than it is sent to."""
        self._flow.pause_writing()
        self._reading_due.set()

    def resume_writing(self) -> None:
        """asyncio's."""
        self._flow.resume_writing()
        self._reading_due.clear()

    def shutdown(self) -> None:
        """uvicorn's: the server ends, and the connection with what is at work on it."""
        if self._at_work is None:
            self._transport.close()
        else:
            self._at_work.is_last = True

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._idle.clear()
        self._unfinished += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse()
            return
        if self._unfinished > self._patience.max_header_bytes:
            self._refuse()
        elif self._at_work is None:
            self._head_due.set()
        else:
            self._head_due.clear()

    def _feed(self, data: bytes) -> None:
        """Reads on.

        A client may offer to go on in another protocol, as some do with every first request. The
        offer is declined; llhttp, which takes all that follows for that protocol's, gives way to a
        parser that is told what body follows.

        Raises:
            httptools.HttpParserError: it is not HTTP.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._parser, self._is_declining = self._new_parser(), True
            framing = (b"%b: %b\r\n" % header for header in self._headers if header[0] in _FRAMING)
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
            self._feed(data[offer.args[0] :])

    def _refuse(self) -> None:
        """Ends the connection of what cannot be read; an answer is not mixed with another."""
        at_work = self._at_work
        if at_work is not None:
            at_work.lost()
        if at_work is None or not at_work.has_begun:
            self._transport.write(_REFUSED)
        self._transport.close()

    def on_message_begin(self) -> None:
        """llhttp's: a request begins."""
        if self._is_declining:
            return
        self._read = None
        self._url = b""
        self._headers = []
        self._asks_leave = False

    def on_url(self, url: bytes) -> None:
        """llhttp's: some of its target."""
        if not self._is_declining:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """llhttp's: one of its headers; trailers are none."""
        if self._read is not None:
            return
        name = name.lower()
        self._headers.append((name, value))
        if name == b"expect":
            self._asks_leave = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        """llhttp's: its head is here."""
        self._unfinished = 0
        if self._is_declining:
            self._is_declining = False
            return
        version = self._parser.get_http_version()
        exchange = Exchange(
            self._scope(version),
            self._transport,
            self._flow,
            common=self._state.default_headers,
            is_last=version == "1.0" or not self._parser.should_keep_alive(),
            asks_leave=self._asks_leave,
            is_leaving=self._is_leaving,
            on_end=self._ended,
        )
        self._read = exchange
        if self._at_work is None:
            self._begin(exchange)
        else:
            self._flow.pause_reading()
            self._waiting.append(exchange)

    def on_body(self, data: bytes) -> None:
        """llhttp's: some of its body."""
        self._unfinished = 0
        if self._read is not None:
            self._read.body_came(data)

    def on_message_complete(self) -> None:
        """llhttp's: all of it is here."""
        self._unfinished = 0
        if self._read is not None and not self._parser.should_upgrade():
            self._read.body_ended()

    def _scope(self, version: str) -> Scope:
        path, _, query = self._url.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
            "state": {},
            **self._addresses,
        }

    def _begin(self, exchange: Exchange) -> None:
        self._at_work = exchange
        task = asyncio.get_running_loop().create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _ended(self) -> None:
        """The answer at work is complete: the next one's turn, or the client's."""
        self._at_work = None
        self._state.total_requests += 1
        if self._transport.is_closing():
            return
        self._flow.resume_reading()
        if self._waiting:
            self._begin(self._waiting.popleft())
        else:
            self._idle.set()


class Alarm:
    """Does something after a while, unless it is cleared before."""

    def __init__(self, after_s: float, action: Callable[[], None]) -> None:
        self._after_s = after_s
        self._action = action
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """Starts the time, unless it runs already."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._after_s, self._action)

    def clear(self) -> None:
        """Stops the time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
