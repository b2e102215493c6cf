"""Files by http and https: one session whose connections go to allowed addresses only.

One resolver, whose answer is the address that is dialled: nothing between the check of an address
and its use asks for it again. A redirect is an answer, not followed here. What comes is bounded in
bytes and is not believed: its content is looked at later, its encoding must be none.
"""

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.media.sources import (
    MAX_URL_CHARS,
    ByteLimit,
    FetchLimits,
    MediaPolicy,
    MediaUrl,
    fetch_failed,
    not_allowed,
)

_PIECE_BYTES = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"Accept": "image/*, video/*", "Accept-Encoding": "identity", "User-Agent": "Tandem"}


class HttpFiles:
    """Asks servers for files. Use as an async context manager."""

    def __init__(self, policy: MediaPolicy, limits: FetchLimits) -> None:
        self._policy = policy
        self._session = _session(policy, limits)

    async def __aenter__(self) -> "HttpFiles":
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, url: MediaUrl, field: str, limit: ByteLimit) -> bytes | MediaUrl:
        """The file behind a URL, or where it is said to be.

        Args:
            url: Checked here, its host and its address.
            field: Its place in the request, for errors.
            limit: How large the file may be.

        Raises:
            InvalidRequest: URL_NOT_ALLOWED; MEDIA_FETCH_FAILED; the error of `limit`.
            TimeoutError: the server was not reached in time.
        """
        literal = url.literal
        if not self._policy.is_allowed(url):
            raise not_allowed(field)
        if literal is not None and not self._policy.may_dial(literal):
            raise not_allowed(field)
        try:
            async with self._session.get(url.text, allow_redirects=False) as response:
                if response.status in _REDIRECTS:
                    return _redirected(response, field)
                _check(response, field, limit)
                return await _body(response, field, limit)
        except TimeoutError:  # of connecting, which is one of aiohttp's errors too
            raise
        except aiohttp.InvalidURL as error:
            raise not_allowed(field) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.__cause__, _Forbidden):
                raise not_allowed(field) from error
            raise fetch_failed(
                field, "could not be fetched, its server cannot be reached"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise fetch_failed(field, "could not be fetched, its server broke off") from error


class _Forbidden(OSError):
    """An address that must not be dialled; of the kind that aiohttp hands on."""


class _PublicResolver(AbstractResolver):
    """The system's resolver; a name with one address that is not allowed has none."""

    def __init__(self, policy: MediaPolicy) -> None:
        self._policy = policy

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results = []
        for its_family, _, protocol, _, where in found:
            address = str(where[0])
            if not self._policy.may_dial(ipaddress.ip_address(address)):
                raise _Forbidden(f"{host} leads to an address that is not allowed")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=its_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        pass


def _session(policy: MediaPolicy, limits: FetchLimits) -> aiohttp.ClientSession:
    def dialled(info: Any) -> socket.socket:
        """The last look: at the address of the very connection that is about to be opened."""
        family, kind, protocol, _, where = info
        if not policy.may_dial(ipaddress.ip_address(where[0])):
            raise _Forbidden("an address that is not allowed")
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    connector = aiohttp.TCPConnector(
        resolver=_PublicResolver(policy),
        socket_factory=dialled,
        use_dns_cache=False,
        force_close=True,
        limit=0,  # the places of the fetcher are the limit
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, connect=limits.connect_s),
        trust_env=False,
        auto_decompress=False,
    )


def _redirected(response: aiohttp.ClientResponse, field: str) -> MediaUrl:
    location = response.headers.get("Location", "")
    if not location or len(location) > MAX_URL_CHARS:
        raise fetch_failed(field, "could not be fetched, its server redirects to nowhere")
    try:
        followed = urljoin(str(response.url), location)
    except ValueError as error:
        raise not_allowed(field) from error
    return MediaUrl.parse(followed, field=field)


def _check(response: aiohttp.ClientResponse, field: str, limit: ByteLimit) -> None:
    if response.status != 200:
        raise fetch_failed(field, f"could not be fetched, its server answered {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise fetch_failed(field, "could not be fetched, its server compressed it")
    limit.check(response.content_length or 0, field=field)


async def _body(response: aiohttp.ClientResponse, field: str, limit: ByteLimit) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_chunked(_PIECE_BYTES):
        data += piece
        limit.check(len(data), field=field)
    return bytes(data)
