"""What media URLs a gateway may follow, and what a client's URL says before it is followed."""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from gateway.media.networks import Address, Network, is_public, is_within
from protos.wire.errors import InvalidRequest, Reason

MAX_URL_CHARS = 8 * 1024

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaHost:
    """A host that media may come from.

    Attributes:
        name: Lower case, in ASCII; without the leading dot where `subdomains` is set.
        subdomains: Whether hosts below it are meant too.
        port: The only port, or None for those of http and https.
    """

    name: str
    subdomains: bool = False
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `media.example`, `*.media.example`, `media.example:8443` or `[2001:db8::1]`.

        Raises:
            ValueError: it is none of these.
        """
        wild = text.startswith("*.")
        parts = urlsplit(f"//{text.removeprefix('*.')}")
        name = parts.hostname
        if name is None or parts.path or parts.query or parts.username is not None or "*" in name:
            raise ValueError(f"{text!r} is no host name, expected HOST, *.HOST or HOST:PORT")
        return cls(name=host_name(name), subdomains=wild, port=parts.port)

    def covers(self, host: str, port: int, *, default_port: bool) -> bool:
        """Whether a URL's host and port are these."""
        named = host.endswith(f".{self.name}") if self.subdomains else host == self.name
        return named and (default_port if self.port is None else port == self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPolicy:
    """Where media may come from; by default from nowhere but the request itself.

    Attributes:
        hosts: Hosts whose URLs are followed.
        any_public: Whether every public host's are, on the ports of http and https.
        networks: Addresses that are allowed though they are not public.
        folder: Folder below which `file:` URLs are read.
    """

    hosts: tuple[MediaHost, ...] = ()
    any_public: bool = False
    networks: tuple[Network, ...] = ()
    folder: str | None = None

    def is_allowed(self, url: "MediaUrl") -> bool:
        """Whether a URL's host and port may be asked; its address is checked when it is known."""
        is_default = url.port == _DEFAULT_PORTS[url.scheme]
        if self.any_public and is_default:
            return True
        return any(host.covers(url.host, url.port, default_port=is_default) for host in self.hosts)

    def may_dial(self, address: Address) -> bool:
        """Whether a connection to this address may be opened."""
        return is_public(address) or is_within(address, self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """What one fetch may take, and how many run at once."""

    connect_s: float = 2.0
    total_s: float = 5.0  # redirects included
    redirects: int = 3
    parallel: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteLimit:
    """How large a file may be.

    Attributes:
        most: Bytes.
        error: The error for one that is larger; from its field, its bytes and `most`.
    """

    most: int
    error: Callable[[str, int, int], InvalidRequest]

    def check(self, size: int, *, field: str) -> None:
        """Compares a size with the limit, which it may just reach.

        Raises:
            InvalidRequest: it is larger.
        """
        if size > self.most:
            raise self.error(field, size, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaUrl:
    """An http or https URL in its parts; `host` in lower case and ASCII, without brackets."""

    text: str
    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, field: str) -> Self:
        """Reads a URL.

        Raises:
            InvalidRequest: URL_NOT_ALLOWED, another scheme, no host, or a name and password in it.
        """
        try:
            parts = urlsplit(text)
            host, port = host_name(parts.hostname or ""), parts.port
        except ValueError as error:
            raise not_allowed(field) from error
        if parts.scheme not in _DEFAULT_PORTS or not host or _has_login(parts):
            raise not_allowed(field)
        return cls(
            text=text,
            scheme=parts.scheme,
            host=host,
            port=_DEFAULT_PORTS[parts.scheme] if port is None else port,
        )

    @property
    def literal(self) -> Address | None:
        """The address a host that is no name stands for."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def is_followed(url: str) -> bool:
    """Whether a URL is one that could be fetched, by its scheme."""
    return url[:8].partition(":")[0].lower() in (*_DEFAULT_PORTS, "file")


def file_path(url: str, *, field: str) -> str:
    """The path in a `file:` URL of this machine.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, another machine's, or no absolute path.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise not_allowed(field) from error
    path = unquote(parts.path)
    is_plain = parts.scheme == "file" and not parts.query and not parts.fragment
    if not is_plain or parts.netloc not in ("", "localhost") or "\0" in path or path[:1] != "/":
        raise not_allowed(field)
    return path


def not_allowed(field: str) -> InvalidRequest:
    """The one answer to every URL that is not followed; it does not tell why."""
    return InvalidRequest(
        f"{field} has a URL that is not allowed, expected a data: URL or one of a host that this"
        " server fetches from",
        reason=Reason.URL_NOT_ALLOWED,
        param=field,
    )


def fetch_failed(field: str, fault: str) -> InvalidRequest:
    """The error for a file that did not come; `fault` continues a sentence about the field."""
    return InvalidRequest(f"{field} {fault}", reason=Reason.MEDIA_FETCH_FAILED, param=field)


def host_name(text: str) -> str:
    """A host as it is compared: lower case, ASCII, without a dot at its end.

    Raises:
        ValueError: no host can be called so.
    """
    name = text.removesuffix(".")
    return name if name.isascii() else name.encode("idna").decode("ascii")


def networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Networks in CIDR form.

    Raises:
        ValueError: one is none.
    """
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def _has_login(parts: SplitResult) -> bool:
    return parts.username is not None or parts.password is not None
