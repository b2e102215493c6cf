"""The HTTP server's socket and manners: bounded headers, no patience with slow ones, draining."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from protos.channels import PortTaken

logger = logging.getLogger(__name__)

BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one.

    Raises:
        PortTaken: another process listens there, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Without it, a restart would find the port taken by the last process's closed connections.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise PortTaken(port) from error
    listening.setblocking(False)
    return listening


class Listener:
    """Serves an ASGI application on a bound socket. Use as an async context manager."""

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        *,
        max_header_bytes: int,
        slow_client_s: float,
        drain_timeout_s: float,
    ) -> None:
        self.port: int = listening.getsockname()[1]
        self._socket = listening
        config = Config(
            app,
            http=_header_deadline(slow_client_s),
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


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's main has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _header_deadline(slow_client_s: float) -> type[H11Protocol]:
    """uvicorn's protocol, closing connections whose headers do not arrive in time.

    uvicorn itself bounds only the time between two requests.
    """

    class HeaderDeadlineProtocol(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_deadline()
            super().connection_lost(exc)

        def _watch_headers(self) -> None:
            """Runs the timer exactly while a request's headers are incomplete."""
            waiting = self.cycle is None or (
                self.cycle.response_complete and bool(self.conn.trailing_data[0])
            )
            if not waiting:
                self._forget_deadline()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(slow_client_s, self.transport.close)

        def _forget_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return HeaderDeadlineProtocol
