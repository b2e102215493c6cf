"""What every route that asks the model begins with: a request opened, and its body understood."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.access.auth import bearer
from gateway.http.bodies.body import body_size, parse_json, read_body
from gateway.http.bodies.encoding import content_encoding, decoded
from gateway.http.disconnects import client_gone
from gateway.http.fields import UnknownFields
from gateway.service import ChatService, OpenRequest
from gateway.threads import Threads, Weight
from protos.process.tracing import TRACEPARENT
from protos.wire.errors import InvalidRequest

T = TypeVar("T")

# Bodies up to so large are understood in a tenth of a millisecond, and in 5 at worst.
LIGHT_BODY_BYTES = 2048


class Requests:
    """Opens requests and reads their bodies; one object per process.

    Args:
        service: Opens them.
        threads: Parse bodies.
        max_body_bytes: Largest body.
        slow_client_s: Longest silence within one.
        refuse_unknown: Whether a field that nobody here knows is an error.
    """

    def __init__(
        self,
        service: ChatService,
        threads: Threads,
        *,
        max_body_bytes: int,
        slow_client_s: float,
        refuse_unknown: bool,
    ) -> None:
        self.service = service
        self._threads = threads
        self._max_body_bytes = max_body_bytes
        self._slow_client_s = slow_client_s
        self._refuse_unknown = refuse_unknown

    def opened(self, request: Request) -> AbstractContextManager[OpenRequest]:
        """The request at work while the block runs; see `ChatService.request`."""
        return self.service.request(
            "http",
            request_id=request.state.request_id,
            authorization=bearer(request.headers),
            traceparent=request.headers.get(TRACEPARENT),
        )

    async def read(
        self,
        request: Request,
        opened: OpenRequest,
        understand: Callable[[dict[str, Any], UnknownFields], T],
    ) -> tuple[T, dict[str, str]]:
        """What a request's JSON object means, and the answer's headers about it.

        Args:
            request: Its body is not read yet.
            opened: Takes its place when its size is known.
            understand: Runs in a worker thread, unless the body is small.

        Raises:
            ServiceError: the body is refused, or the client has gone.
        """
        encoding = content_encoding(request.headers.getlist("content-encoding"))
        body = await self._body(request, opened, is_encoded=bool(encoding))
        decode = partial(decoded, encoding=encoding, limit=self._max_body_bytes)
        unknown = UnknownFields(refused=self._refuse_unknown)
        found = await self._threads.run(
            lambda: understand(_object(decode(body)), unknown), _weight_of(body, encoding)
        )
        return found, unknown.headers(request.state.request_id)

    async def _body(self, request: Request, opened: OpenRequest, *, is_encoded: bool) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", ""):
            raise InvalidRequest("the Content-Type must be application/json", param=None)
        size = body_size(request.headers.get("content-length"), limit=self._max_body_bytes)
        # Where nothing says how large it will be, the place is as large as a body may be.
        opened.take_place(self._max_body_bytes if size is None or is_encoded else size)
        try:
            return await read_body(
                request.stream(),
                limit=self._max_body_bytes,
                patience_s=self._slow_client_s,
                by_s=opened.whole_by_s,
            )
        except ClientDisconnect as error:
            raise client_gone() from error


def _weight_of(body: bytes, encoding: str) -> Weight:
    is_light = not encoding and len(body) <= LIGHT_BODY_BYTES
    return Weight.LIGHT if is_light else Weight.SHORT


def _object(body: bytes) -> dict[str, Any]:
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise InvalidRequest('the body must be a JSON object, as in {"messages": [...]}')
    return parsed
