"""What every HTTP request passes before it reaches a route: id, Host, headers, origin, key."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.auth import API_KEY, AUTHORIZATION, bearer, one_value
from gateway.access.keys import Caller
from gateway.http.cors import check_page
from gateway.http.errors import Api, api_of, error_response
from gateway.http.page import is_of_page
from gateway.http.rates import rate_headers
from gateway.request.ids import request_id
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import InvalidRequest, ServiceError

MAX_HEADERS = 100
MAX_HOST_CHARS = 100  # of a name that an error repeats
LINGER_S = 1.0
LINGER_BYTES = 1024 * 1024

# HTTP/1.0 may leave it out, HTTP/1.1 may leave it empty.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*))(?::[0-9]{0,5})?", re.ASCII)

# Answered without a key, so that load balancers need none; they tell nothing but readiness.
_OPEN_PATHS = ("/health", "/health/ready", "/health/live")


class Guard:
    """ASGI middleware; gives every request an id, which every response carries.

    Args:
        app: What lies behind it.
        authorize: Finds whose a request is by its `Authorization` header, or refuses it, on every
            path but the open ones. None: nobody's, whose answers tell of no limits.
        hosts: Names of this server that requests may use; None for any.
        origins: Of web pages that may ask this server.
        max_header_bytes: Most bytes of all headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authorize: Callable[[str | None], Caller | None],
        hosts: Sequence[str] | None,
        origins: Sequence[str],
        max_header_bytes: int,
    ) -> None:
        self._app = app
        self._authorize = authorize
        self._hosts = hosts
        self._origins = origins
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Each is looked for a few times; of several the first counts.
        fields = dict(reversed(headers.items()))
        authority, path = target(scope["path"])
        scope["path"] = path
        name = request_id(fields.get(REQUEST_ID_KEY))
        scope.setdefault("state", {})["request_id"] = name

        body = _Body(receive, fields)
        api = api_of(path)
        caller: Caller | None = None

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                if body.unread:
                    await body.skip()
                answered = MutableHeaders(scope=message)
                answered[REQUEST_ID_KEY] = name
                if caller is not None:
                    answered.update(rate_headers(caller.account))
                if api is Api.ANTHROPIC:
                    answered["request-id"] = name  # the header its clients look for
                if body.unread:
                    answered["connection"] = "close"
            elif body.unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            self._check([fields.get("host", ""), *authority], headers)
            check_page(scope["method"], fields, self._origins)
            if path not in _OPEN_PATHS and not is_of_page(path):
                caller = self._authorize(bearer(fields))
        except ServiceError as error:
            await error_response(error, api)(scope, body.receive, tagged)
            return
        await self._app(scope, body.receive, tagged)

    def _check(self, hosts: Sequence[str], headers: Headers) -> None:
        size = sum(len(name) + len(value) for name, value in headers.raw)
        if len(headers.raw) > MAX_HEADERS or size > self._max_header_bytes:
            raise InvalidRequest(
                f"the request has {len(headers.raw)} headers of {size} bytes, expected at most"
                f" {MAX_HEADERS} of {self._max_header_bytes}"
            )
        for name in map(host_name, hosts):
            if self._hosts is not None and name not in self._hosts:
                raise InvalidRequest(
                    f"the Host {name[:MAX_HOST_CHARS]!r} is none of this server's names; where it"
                    " is one, the setting allowed_hosts (--allowed-hosts) has to list it"
                )
        for name in (AUTHORIZATION, API_KEY):
            one_value(headers.getlist(name), name)


class _Body:
    """Knows whether all of a request's body was read when its answer is complete.

    The connection of a body that nobody wants, and that is not all here, ends with the answer, or
    the server would swallow the rest for as long as it comes. It ends a little later, because what
    a client still sends to a closed socket can cost it the answer.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str]) -> None:
        self._receive = receive
        length = headers.get("content-length", "0")
        self.unread = "transfer-encoding" in headers or length != "0"
        self._is_held_back = "expect" in headers  # until the server asks for it

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):  # its end, or the client's
            self.unread = False
        return message

    async def skip(self) -> None:
        """Reads what is here, so that a small body which nobody wants costs no connection."""
        if self._is_held_back:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                while self.unread:
                    await self.receive()

    async def discard(self) -> None:
        """Reads what is under way, within LINGER_S and LINGER_BYTES."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self.unread and size < LINGER_BYTES:
                    size += len((await self.receive()).get("body", b""))


def target(path: str) -> tuple[list[str], str]:
    """The path a request is for, and the hosts that its target names beside the Host header.

    Clients of a proxy send the whole URL; slashes at the end mean nothing, because a redirect to
    the path without them would cost clients of a proxy their key.
    """
    scheme, separator, rest = path.partition("://")
    authority = []
    if separator and scheme.lower() in ("http", "https"):
        host, slash, path = rest.partition("/")
        authority, path = [host], slash + path
    return authority, path.rstrip("/") or "/"


def host_name(host: str) -> str:
    """The name in a Host header, lower-case, without its port and without IPv6's brackets.

    Raises:
        InvalidRequest: it is anything but HOST or HOST:PORT, for which others may see another
            name in it than this server.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        raise InvalidRequest("the Host header must be a name or address with an optional port")
    return (found[1] or found[2] or "").lower()
