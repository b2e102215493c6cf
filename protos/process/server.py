"""The gRPC server of a service process: its socket, limits, health and end."""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as reflection_rpc

from protos.process.tokens import TokenGate
from protos.wire import addresses
from protos.wire.channels import LARGE_MESSAGE_BYTES, SMALL_MESSAGE_BYTES, Options
from protos.wire.credentials import CredentialFiles, Credentials, Secrets

LISTEN_BACKLOG = 1024

# How long calls that outlived the drain get to tell their clients so, before they are cut.
LAST_WORDS_S = 1.0


def server_options(max_receive_bytes: int) -> Options:
    """Settings of a server: size limits, bounded metadata, one listener per port."""
    return (
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", LARGE_MESSAGE_BYTES),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.so_reuseport", 0),
    )


class BindError(Exception):
    """A server cannot listen where it was told to; the text is one line."""


class PortTaken(BindError):
    """Another process listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is already in use")
        self.port = port


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Family and socket address of an IPv4 or IPv6 address, with or without brackets, or a name.

    Raises:
        BindError: a name that leads nowhere.
    """
    try:
        found = socket.getaddrinfo(
            addresses.bare(host) or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise BindError(f"host {host!r} is neither an address nor a known name") from error
    family, _, _, _, address = found[0]
    return family, address


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 picks a free one.

    Raises:
        PortTaken: another process listens there.
        BindError: the address is not this machine's, or the port needs more rights.
    """
    family, address = resolve(host, port)
    # TCP by name, because asyncio looks for it before it sets TCP_NODELAY on what is accepted. Else
    # the body of an answer waits for the client's word that its head came: 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Without it, a restart would find the port taken by the last process's closed connections.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(LISTEN_BACKLOG)
    except OSError as error:
        listening.close()
        raise _bind_error(error, host, port) from error
    listening.setblocking(False)
    return listening


def _bind_error(error: OSError, host: str, port: int) -> BindError:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(port)
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return BindError(f"host {host!r} is not an address of this machine")
    if error.errno in (errno.EACCES, errno.EPERM):
        return BindError(f"port {port} may not be opened by this user, expected 1024 or more")
    return BindError(f"cannot listen on {addresses.join(host, port)}: {error.strerror}")


class GrpcServer:
    """A gRPC server with health: NOT_SERVING until told otherwise, drained on stop.

    Use as an async context manager; register servicers on `server` before entering.

    Args:
        host: IPv4 or IPv6 address of this machine, or a name.
        port: 0 picks a free one.
        services: Full names of the services that will be registered, which health is asked for.
        max_receive_bytes: Largest message.
        drain_timeout_s: How long running calls may go on when the server ends.
        reflection: Whether to answer what services there are.
        interceptors: Run before every call, health and reflection included.
        credentials: What is shown and asked for: with TLS, a client must show a certificate where
            an authority is named; with a token, every call but those to health must tell it.
            They follow their files. None: whoever reaches the port is answered.

    Attributes:
        end_calls: Ends the calls that still run when the time to drain is over; those that it
            leaves, and all without it, are cut: their clients are not told why.

    Raises:
        BindError: the server cannot listen there.
        CredentialError: a file of the credentials cannot be used.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        services: Sequence[str] = (),
        max_receive_bytes: int = SMALL_MESSAGE_BYTES,
        drain_timeout_s: float = 30.0,
        reflection: bool = False,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        credentials: Credentials | None = None,
    ) -> None:
        files = CredentialFiles(credentials or Credentials())
        if files.credentials.has_token:
            interceptors = (TokenGate(files), *interceptors)
        self.server = grpc.aio.server(
            options=server_options(max_receive_bytes), interceptors=interceptors
        )
        self._services = tuple(services)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        if reflection:
            names = (*services, health.SERVICE_NAME, reflection_rpc.SERVICE_NAME)
            reflection_rpc.enable_server_reflection(names, self.server)
        self._drain_timeout_s = drain_timeout_s
        self.end_calls: Callable[[], None] | None = None
        # Tried first, because gRPC's core writes lines of its own about a taken port.
        bind(host, port).close()
        _, (address, *_) = resolve(host, port)
        try:
            self.port = self._add_port(addresses.join(address, port), files)
        except RuntimeError as error:
            raise PortTaken(port) from error
        if self.port == 0:
            raise PortTaken(port)

    def _add_port(self, address: str, files: CredentialFiles) -> int:
        if not files.credentials.tls:
            return self.server.add_insecure_port(address)
        return self.server.add_secure_port(address, _renewed_credentials(files))

    async def __aenter__(self) -> Self:
        await self.set_serving(False)
        await self.server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._health.enter_graceful_shutdown()
        if self.end_calls is None:
            await self.server.stop(self._drain_timeout_s)
            return
        stopping = asyncio.create_task(self.server.stop(self._drain_timeout_s + LAST_WORDS_S))
        await asyncio.wait({stopping}, timeout=self._drain_timeout_s)
        if not stopping.done():
            self.end_calls()
        await stopping

    async def set_serving(self, serving: bool) -> None:
        """Flips what grpc.health.v1 answers for the whole server and for each of its services."""
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if serving else response.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)


def _renewed_credentials(files: CredentialFiles) -> grpc.ServerCredentials:
    """What gRPC shows to clients; asked for at each handshake, on a thread of gRPC's."""
    shown = files.current()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        now = files.current()
        if now is shown:
            return None
        shown = now
        return _configuration(now)

    required = files.credentials.authority is not None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        newer,  # type: ignore[arg-type]  # the stubs leave out that None keeps what is shown
        required,
    )


def _configuration(secrets: Secrets) -> grpc.ServerCertificateConfiguration:
    pair = (secrets.key or b"", secrets.certificate or b"")
    return grpc.ssl_server_certificate_configuration([pair], secrets.authority)
