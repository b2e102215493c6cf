"""The running gateway that a user names: by its gRPC address, or by the URL of its HTTP door."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deploy.client import ChatClient
from deploy.stack.record import records
from deploy.terminal.screen import CommandError
from protos.wire import channels
from protos.wire.addresses import LOOPBACK_NAMES, join, split
from protos.wire.credentials import CredentialError, Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFiles:
    """PEM files for a server that speaks TLS.

    Attributes:
        authority: Who signed the server's certificate; None: one that this system trusts.
        certificate, key: What this user shows, where the server asks for it.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def credentials(self, server: str) -> Credentials:
        """How a server is spoken to: with TLS where its URL says https, or a file is named.

        Raises:
            CommandError: one of certificate and key is missing.
        """
        if (self.certificate is None) != (self.key is None):
            raise CommandError("--certificate and --key belong together", exit_code=2)
        named = [self.authority, self.certificate, self.key]
        authority, certificate, key = (None if file is None else str(file) for file in named)
        return Credentials(
            tls=server.startswith("https://") or any(named),
            authority=authority,
            certificate=certificate,
            key=key,
            prefix="",
        )

    def context(self, server: str) -> ssl.SSLContext | None:
        """The same for an HTTP client; None where the URL is not https.

        Raises:
            CommandError: a file is missing, or is not what it should be.
        """
        credentials = self.credentials(server)
        if not server.startswith("https://"):
            return None
        try:
            made = ssl.create_default_context(cafile=credentials.authority)
            if credentials.certificate is not None:
                made.load_cert_chain(credentials.certificate, credentials.key)
        except OSError as error:  # ssl's own are of this kind
            raise CommandError(
                f"--authority, --certificate, --key: {error.strerror}", exit_code=2
            ) from error
        return made


NO_FILES = ClientFiles()


@contextmanager
def connected(
    server: str, *, api_key: str | None, otherwise: str, files: ClientFiles = NO_FILES
) -> Iterator[ChatClient]:
    """A client of the gateway at `server`.

    Args:
        server: See `grpc_address`.
        otherwise: What the user can do where no server answers.
        files: What the user and the server know each other by.

    Raises:
        CommandError: no server answers, it is a tier behind the gateway, or a file cannot be used.
    """
    address = grpc_address(server, os.environ)
    credentials = files.credentials(server)
    try:
        made = ChatClient(address, api_key=api_key, credentials=credentials)
    except CredentialError as error:
        raise CommandError(f"--{error}", exit_code=2) from error
    with made as client:
        if not client.wait_until_serving():
            spoken = " with TLS (--authority names who signed its certificate)"
            raise CommandError(
                f"no Tandem server answers at {_named(server, address)}"
                f"{spoken if credentials.tls else ''}; {otherwise}"
            )
        tier = client.tier()
        if tier is not None:
            raise CommandError(
                f"{server} is the {tier} tier; {_whereabouts(tier, address, os.environ)}",
                exit_code=2,
            )
        yield client


def grpc_address(server: str, environ: Mapping[str, str]) -> str:
    """`host:port` of the gRPC door of a gateway.

    Args:
        server: `host:port` of that door, or the URL or `host:port` of the HTTP door. Of stacks on
            this machine the gRPC port is known; elsewhere it is taken for the usual one.

    Raises:
        CommandError: `server` is neither.
    """
    is_url = "://" in server
    try:
        host, port = _url_parts(server) if is_url else split(server)
    except ValueError as error:
        raise CommandError(f"--server: {error}", exit_code=2) from error
    if host in LOOPBACK_NAMES:
        for record in records(environ):
            if record.http_port == port:
                return record.addresses["gateway"]
    return join(host, channels.GATEWAY_GRPC_PORT if is_url else port)


def _url_parts(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address, expected http://HOST:PORT/v1 or HOST:PORT")
    return parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)


def _named(server: str, address: str) -> str:
    if "://" not in server:
        return address
    return f"{address}, taken for the gRPC door of {server} (HOST:PORT names another one)"


def _whereabouts(tier: str, address: str, environ: Mapping[str, str]) -> str:
    port = split(address)[1]
    for record in records(environ):
        if split(record.addresses[tier])[1] == port:
            return f"its gateway listens on {record.addresses['gateway']}"
    return (
        f"ask its gateway, which listens on port {channels.GATEWAY_GRPC_PORT} unless told another"
    )
