"""The key at the gRPC door: in a call's metadata, for reflection too."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from gateway.access.auth import AUTHORIZATION, one_authorization
from protos.wire.errors import ServiceError, abort

_REFLECTION = f"/{reflection.SERVICE_NAME}/"
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs alone

Context = grpc.aio.ServicerContext[Any, Any]


def authorization(metadata: Iterable[tuple[str, str | bytes]] | None) -> str | None:
    """The `authorization` of a call; None without one.

    Raises:
        InvalidRequest: there are several.
    """
    values = [value for key, value in metadata or () if key == AUTHORIZATION]
    return one_authorization([value for value in values if isinstance(value, str)])


class ReflectionKey(grpc.aio.ServerInterceptor):
    """Refuses reflection without the key, which our own methods ask for themselves.

    Health stays open, as GET /health does: load balancers have no key.

    Args:
        authorize: Refuses a wrong `Authorization` value.
    """

    def __init__(self, authorize: Callable[[str | None], object]) -> None:
        self._authorize = authorize

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler, or one that ends the call with the refusal."""
        if handler_call_details.method.startswith(_REFLECTION):
            try:
                self._authorize(authorization(handler_call_details.invocation_metadata))
            except ServiceError as error:
                return _refusing(error)
        return await continuation(handler_call_details)


def _refusing(refusal: ServiceError) -> "Handler":
    async def refuse(
        requests: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        await anext(requests, None)  # a client that still writes may miss why the call ended
        await abort(context, refusal)
        yield reflection_pb2.ServerReflectionResponse()  # a generator, as a stream's handler is

    return grpc.stream_stream_rpc_method_handler(refuse)
