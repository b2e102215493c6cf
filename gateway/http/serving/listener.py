"""The HTTP server's socket and manners: bounded headers, no patience with slow ones, draining."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.http.serving.protocol import Patience, Protocol
from gateway.http.serving.tls import server_context
from protos.wire.credentials import CredentialFiles

logger = logging.getLogger(__name__)


class Listener:
    """Serves an ASGI application on a bound socket. Use as an async context manager.

    Args:
        app: What answers.
        listening: The socket.
        max_header_bytes: Most bytes of a request's headers, beyond what comes in one piece.
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
        patience = Patience(max_header_bytes=max_header_bytes, slow_client_s=slow_client_s)
        config = Config(
            app,
            http=_protocols(patience, is_leaving),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
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


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process's main has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _protocols(patience: Patience, is_leaving: Callable[[], bool]) -> Any:
    """What makes a connection's protocol, as uvicorn calls it."""

    def make(*, config: Config, server_state: ServerState, **_: Any) -> Protocol:
        return Protocol(config.loaded_app, server_state, patience, is_leaving)

    return make
