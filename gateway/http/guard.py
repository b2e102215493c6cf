"""What every HTTP request passes before it reaches a route: id, Host, headers, key."""

from collections.abc import Callable, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access.auth import AUTHORIZATION
from gateway.http.errors import error_response
from gateway.request.ids import request_id
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import InvalidRequest, ServiceError

MAX_HEADERS = 100

# Answered without a key, so that load balancers need none; it tells nothing but readiness.
_OPEN_PATHS = ("/health",)


class Guard:
    """ASGI middleware; gives every request an id, which every response carries.

    Args:
        app: What lies behind it.
        authorize: Refuses a wrong `Authorization` header, on every path but the open ones.
        hosts: Names of this server that requests may use; None for any.
        max_header_bytes: Most bytes of all headers.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authorize: Callable[[str | None], object],
        hosts: Sequence[str] | None,
        max_header_bytes: int,
    ) -> None:
        self._app = app
        self._authorize = authorize
        self._hosts = hosts
        self._max_header_bytes = max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        name = request_id(headers.get(REQUEST_ID_KEY))
        scope.setdefault("state", {})["request_id"] = name

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_KEY] = name
            await send(message)

        try:
            self._check(scope["path"], headers)
        except ServiceError as error:
            await error_response(error)(scope, receive, tagged)
            return
        await self._app(scope, receive, tagged)

    def _check(self, path: str, headers: Headers) -> None:
        size = sum(len(name) + len(value) for name, value in headers.raw)
        if len(headers.raw) > MAX_HEADERS or size > self._max_header_bytes:
            raise InvalidRequest(
                f"the request has {len(headers.raw)} headers of {size} bytes, expected at most"
                f" {MAX_HEADERS} of {self._max_header_bytes}"
            )
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise InvalidRequest("the Host header names another server")
        if path not in _OPEN_PATHS:
            self._authorize(headers.get(AUTHORIZATION))


def _host_name(host: str) -> str:
    """The name in a Host header, without its port and without IPv6's brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
