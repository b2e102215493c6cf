"""The HTTP server's socket and manners: bounded headers, no patience with slow ones, draining."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.http.tls import server_context
from protos.wire.credentials import CredentialFiles

logger = logging.getLogger(__name__)


class Listener:
    """Serves an ASGI application on a bound socket. Use as an async context manager.

    Args:
        app: What answers.
        listening: The socket.
        max_header_bytes: Most bytes of a request's headers.
        slow_client_s: How long a client may be silent within its headers, or not read.
        drain_timeout_s: How long running requests may go on when the server ends.
        tls: Certificate and key to show; None: no TLS.
        is_leaving: Whether the server is about to end: every answer then closes its connection,
            which a client would else use again just as it is closed.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        *,
        max_header_bytes: int,
        slow_client_s: float,
        drain_timeout_s: float,
        tls: CredentialFiles | None = None,
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.port: int = listening.getsockname()[1]
        self._socket = listening
        config = Config(
            _parting(app, is_leaving),
            http=_protocol(slow_client_s),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=max_header_bytes,
            timeout_graceful_shutdown=max(1, round(drain_timeout_s)),
        )
        config.load()
        config.ssl = None if tls is None else server_context(tls)
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Listener":
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
                raise RuntimeError("the HTTP server ended before it served")
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def _parting(app: ASGIApp, is_leaving: Callable[[], bool]) -> ASGIApp:
    async def closing_app(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and is_leaving():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await app(scope, receive, closing)

    return closing_app


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's main has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocol(slow_client_s: float) -> type[H11Protocol]:
    """uvicorn's protocol, losing patience with clients that send or read too slowly.

    uvicorn itself bounds only the time between two requests.
    """

    class ImpatientProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # Aborting, because closing would wait for the client to read what is buffered.
            self._headers_due = _Alarm(slow_client_s, transport.abort)
            self._reading_due = _Alarm(slow_client_s, transport.abort)
            self._headers_due.set()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._headers_are_incomplete():
                self._headers_due.set()
            else:
                self._headers_due.clear()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reading_due.set()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reading_due.clear()

        def connection_lost(self, exc: Exception | None) -> None:
            self._headers_due.clear()
            self._reading_due.clear()
            super().connection_lost(exc)

        def _headers_are_incomplete(self) -> bool:
            if self.cycle is None:
                return True
            return self.cycle.response_complete and bool(self.conn.trailing_data[0])

    return ImpatientProtocol


class _Alarm:
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
