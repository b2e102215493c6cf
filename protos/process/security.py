"""Settings that every service has: who may speak to it, and what it tells of its work."""

import ipaddress
import logging
from dataclasses import dataclass
from typing import Protocol

from protos.process.server import resolve
from protos.process.settings import LOG_FORMATS, LOG_LEVELS, SettingError, setting
from protos.process.trace_export import check_endpoint
from protos.wire.credentials import CredentialError, Credentials, read_tokens

logger = logging.getLogger(__name__)

TLS_NAMES = ("tls_certificate", "tls_key", "tls_authority")


@dataclass(frozen=True, slots=True, kw_only=True)
class HopSettings:
    """What services show each other and ask of each other, and what they tell their operator.

    A service's settings inherit them.

    With the three `tls_` settings both ends of every call between services show a certificate of
    the same authority; with a token the caller also says what both know.
    """

    tls_certificate: str | None = setting(
        "file (PEM) of this service's certificate, shown to services and asked of them; read"
        " again when it changes; `tandem certificates` makes one",
        default=None,
    )
    tls_key: str | None = setting("file (PEM) of the certificate's private key", default=None)
    tls_authority: str | None = setting(
        "file (PEM) of the authority that signs the certificates of all services", default=None
    )
    token: str | None = setting(
        "what services tell each other beside their certificates; better given by environment or"
        " token_file than as a flag; several, comma-separated, while it is changed: the first is"
        " told, all are accepted",
        default=None,
        secret=True,
    )
    token_file: str | None = setting(
        "file that holds token, one a line; read again when it changes", default=None
    )
    allow_insecure: bool = setting(
        "listen beyond loopback though what keeps strangers out is not set, or join a Ray cluster"
        " there that asks for neither a token nor certificates",
        default=False,
    )

    metrics_host: str = setting(
        "address the metrics port listens on; it tells figures, without a key, to whoever reaches"
        " it",
        default="127.0.0.1",
    )
    log_level: str = setting("DEBUG, INFO, WARNING or ERROR", default="INFO", choices=LOG_LEVELS)
    log_format: str = setting(
        "text: plain lines; json: an object a line; auto: text on a terminal, else json",
        default="auto",
        choices=LOG_FORMATS,
    )
    trace_endpoint: str | None = setting(
        "OpenTelemetry collector that takes traces (OTLP over gRPC), as http://127.0.0.1:4317;"
        " unset: no traces",
        default=None,
    )
    trace_ratio: float = setting(
        "share of requests traced of those that bring no traceparent header, 0 to 1; one that"
        " does says itself whether it is",
        default=0.0,
        least=0.0,
        most=1.0,
    )

    @property
    def credentials(self) -> Credentials:
        """What this service shows to other services and asks of them."""
        return Credentials(
            tls=self.tls_certificate is not None,
            certificate=self.tls_certificate,
            key=self.tls_key,
            authority=self.tls_authority,
            token=self.token,
            token_file=self.token_file,
        )

    @property
    def shown(self) -> tuple[Credentials, ...]:
        """All credentials of which this service shows a certificate to somebody."""
        return (self.credentials,)

    def unprotected(self) -> tuple[str, ...]:
        """The settings without which strangers could use this service; empty where all are set."""
        credentials = self.credentials
        tls = () if credentials.tls else (TLS_NAMES[0],)
        return tls if credentials.has_token else (*tls, "token_file")


class Listening(Protocol):
    """The settings of a service that listens."""

    @property
    def host(self) -> str: ...
    @property
    def allow_insecure(self) -> bool: ...
    def unprotected(self) -> tuple[str, ...]:
        """The settings without which strangers could use the service."""


def check_hops(config: HopSettings) -> None:
    """Checks what the settings of hops say together; called by `__post_init__` of the settings.

    Raises:
        SettingError: some of the three files of TLS are named and others are not, the token is
            given twice or is none, or trace_endpoint is no collector's.
    """
    if config.trace_endpoint is not None:
        check_endpoint(config.trace_endpoint)
    named = [name for name in TLS_NAMES if getattr(config, name) is not None]
    absent = [name for name in TLS_NAMES if name not in named]
    if named and absent:
        raise SettingError(f"{absent[0]} is not set, but {named[0]} is: all of TLS needs all three")
    if config.token is not None and config.token_file is not None:
        raise SettingError("token and token_file are both set, expected one of them")
    if config.token is not None:
        try:
            read_tokens(config.credentials)
        except CredentialError as error:
            raise SettingError(str(error)) from error


def check_exposure(config: Listening) -> None:
    """Refuses a host that other machines reach where strangers could use the service there.

    Raises:
        SettingError: what is missing, and the setting that allows it.
        BindError: the host leads nowhere.
    """
    missing = config.unprotected()
    if not missing or is_loopback(config.host):
        return
    listed = " and ".join(missing)
    if config.allow_insecure:
        logger.warning("host %s is open without %s", config.host, listed)
        return
    verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
    raise SettingError(
        f"host is {config.host!r}, which other machines can reach, and {listed} {verb} not set:"
        f" set {them} (`tandem certificates` makes the files), or allow_insecure to serve whoever"
        " reaches it"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`.

    Raises:
        BindError: a name that leads nowhere.
    """
    _, (address, *_) = resolve(host, 0)
    return ipaddress.ip_address(address).is_loopback
