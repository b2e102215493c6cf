"""Settings of where clients come in, and of what they may send there."""

import re
from dataclasses import dataclass

from gateway.settings.entries import entries
from protos.process.settings import MAX_PORT, SettingError, setting
from protos.wire.addresses import LOOPBACK_NAMES, bare
from protos.wire.channels import (
    GATEWAY_ADMIN_PORT,
    GATEWAY_GRPC_PORT,
    GATEWAY_HTTP_PORT,
    GATEWAY_METRICS_PORT,
    MIB,
)
from protos.wire.credentials import Credentials

# As browsers write an origin: lower case, and nothing behind the port.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class DoorSettings:
    """The doors, HTTP and gRPC, and the operator's port."""

    host: str = setting("address both doors listen on", default="127.0.0.1")
    http_port: int = setting(
        "port of the HTTP door; 0 picks one", default=GATEWAY_HTTP_PORT, least=0, most=MAX_PORT
    )
    grpc_port: int = setting(
        "port of the gRPC door; 0 picks one", default=GATEWAY_GRPC_PORT, least=0, most=MAX_PORT
    )
    metrics_port: int | None = setting(
        f"port of Prometheus metrics that need no key, as {GATEWAY_METRICS_PORT}; 0 picks one;"
        " unset: only /metrics of the HTTP door",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    door_certificate: str | None = setting(
        "file (PEM) of the certificate that both doors show to clients, which then speak https and"
        " gRPC with TLS; read again when it changes; unset: no TLS",
        default=None,
    )
    door_key: str | None = setting(
        "file (PEM) of the private key of door_certificate", default=None
    )
    door_authority: str | None = setting(
        "file (PEM) of the authority that must have signed the certificate of every client; unset:"
        " clients need none",
        default=None,
    )
    admin_port: int | None = setting(
        f"port of admin operations, as {GATEWAY_ADMIN_PORT}; 0 picks one; unset: none",
        default=None,
        least=0,
        most=MAX_PORT,
    )
    admin_host: str = setting("address of the admin port", default="127.0.0.1")
    admin_key: str | None = setting(
        "key that admin requests must carry; needed where admin_host is not loopback",
        default=None,
        secret=True,
    )
    allowed_hosts: str | None = setting(
        "Host names answered, comma-separated; unset: loopback names on a loopback host, else any",
        default=None,
    )
    cors_origins: str | None = setting(
        "origins, as in https://chat.example, whose web pages may ask this server, comma-separated;"
        " * for all; unset: none",
        default=None,
    )
    reflection: bool = setting("answer gRPC reflection", default=False)
    max_body_bytes: int = setting("largest request", default=32 * MIB, least=1)
    max_header_bytes: int = setting("largest set of HTTP headers", default=16 * 1024)
    unknown_fields: str = setting(
        "refuse: a field that nobody here knows is an error; warn: it is left out, and the answer's"
        " header x-ignored-fields names it",
        default="refuse",
        choices=("refuse", "warn"),
    )
    slow_client_s: float = setting(
        "seconds a client may take for its headers, and between pieces of a body", default=20.0
    )
    drain_notice_s: float = setting(
        "seconds on shutdown in which new requests are still taken, while /health/ready tells"
        " balancers to send them elsewhere and every answer closes its connection",
        default=0.0,
        least=0,
    )
    drain_timeout_s: float = setting(
        "seconds running requests get on shutdown, after drain_notice_s", default=30.0
    )

    def check_doors(self) -> None:
        """Checks what these settings say together.

        Raises:
            SettingError: half of TLS, no origin, or an open admin port without a key.
        """
        if (self.door_certificate is None) != (self.door_key is None):
            named, absent = "door_certificate", "door_key"
            if self.door_certificate is None:
                named, absent = absent, named
            raise SettingError(f"{absent} is not set, but {named} is: TLS needs both")
        if self.door_authority is not None and self.door_certificate is None:
            raise SettingError("door_authority needs door_certificate and door_key")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingError(
                    f"cors_origins holds {origin!r}, expected SCHEME://HOST or SCHEME://HOST:PORT"
                )
        if self.admin_key == "":
            raise SettingError("admin_key is empty")
        if self.admin_key is None and self.admin_hosts is None:
            raise SettingError("admin_key is not set, and admin_host is beyond loopback")

    @property
    def door_credentials(self) -> Credentials:
        """What both doors show to clients and ask of them."""
        return Credentials(
            tls=self.door_certificate is not None,
            certificate=self.door_certificate,
            key=self.door_key,
            authority=self.door_authority,
            prefix="door_",
        )

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Origins of web pages that may ask; empty for none."""
        return tuple(entries(self.cors_origins or ""))

    @property
    def served_hosts(self) -> tuple[str, ...] | None:
        """Host names requests may use; None answers any.

        A server on loopback answers loopback names only, so that a web page cannot reach it
        through a name of its own that it lets point to 127.0.0.1.
        """
        if self.allowed_hosts is not None:
            return tuple(bare(entry).lower() for entry in entries(self.allowed_hosts))
        return _loopback_names(self.host)

    @property
    def admin_hosts(self) -> tuple[str, ...] | None:
        """Host names admin requests may use, likewise."""
        return _loopback_names(self.admin_host)


def _loopback_names(host: str) -> tuple[str, ...] | None:
    return LOOPBACK_NAMES if bare(host) in LOOPBACK_NAMES else None
