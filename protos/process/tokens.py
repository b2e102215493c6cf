"""The token that every call between services must tell."""

import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health

from protos.wire.credentials import CredentialFiles
from protos.wire.errors import Reason, ServiceError, abort
from protos.wire.renewing import AUTHORIZATION_KEY

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs alone

logger = logging.getLogger(__name__)

COMPLAINT_S = 60.0  # between lines of the log on calls that are refused

_HEALTH = f"/{health.SERVICE_NAME}/"

Context = grpc.aio.ServicerContext[Any, Any]


class TokenGate(grpc.aio.ServerInterceptor):
    """Refuses calls without the token.

    Health needs none, because what probes a process has none; it tells nothing but readiness, and
    only to whom the port's TLS lets in.

    Args:
        files: The tokens, any of which is taken; followed as their file changes.
    """

    def __init__(self, files: CredentialFiles) -> None:
        self._files = files
        self._complained_s = -COMPLAINT_S

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler, or one that ends the call with the refusal."""
        handler = await continuation(handler_call_details)
        told = _told(handler_call_details.invocation_metadata)
        if (
            handler is None
            or handler_call_details.method.startswith(_HEALTH)
            or is_token(told, self._files.current().tokens)
        ):
            return handler
        self._complain()
        return _refusing(handler)

    def _complain(self) -> None:
        now = time.monotonic()
        if now - self._complained_s >= COMPLAINT_S:
            self._complained_s = now
            logger.warning("a call was refused: its token is missing or wrong")


def is_token(told: str | None, tokens: Sequence[str]) -> bool:
    """Whether an `authorization` tells one of the tokens; as fast for every wrong one.

    Args:
        told: The value, `Bearer TOKEN`; None where there is none.
        tokens: Those that are taken.
    """
    scheme, _, token = (told or "").partition(" ")
    # All of them, so that the time does not tell which one was close.
    matching = [one for one in tokens if hmac.compare_digest(token.encode(), one.encode())]
    return scheme.lower() == "bearer" and bool(matching)


def _told(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The one `authorization` of a call; None without one, and where there are several."""
    values = [value for key, value in metadata or () if key == AUTHORIZATION_KEY]
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def _refusing(handler: "Handler") -> "Handler":
    """A handler of the same shape that refuses."""
    refusal = ServiceError("the token is missing or wrong", reason=Reason.INVALID_TOKEN)

    async def answer(request: Any, context: Context) -> None:
        await _end(request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[bytes]:
        await _end(request, context)
        yield b""  # a generator, as a stream's handler is

    async def _end(request: Any, context: Context) -> None:
        if handler.request_streaming:
            await anext(request, None)  # a client that still writes may miss why the call ended
        await abort(context, refusal)

    shapes = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    shape: Any = shapes[handler.request_streaming, handler.response_streaming]
    refusing: Handler = shape(stream if handler.response_streaming else answer)
    return refusing
