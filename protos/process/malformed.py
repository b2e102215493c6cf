"""Messages that cannot be parsed: refused as any bad request, before a handler sees them.

gRPC itself answers them with UNKNOWN and the exception's text, and writes a traceback for each into
the log.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from protos.wire.errors import InvalidRequest, abort

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs alone

Context = grpc.aio.ServicerContext[Any, Any]

_MALFORMED = object()  # handed on in a message's place


class Malformed(grpc.aio.ServerInterceptor):
    """Ends a call whose one message cannot be parsed with INVALID_ARGUMENT.

    Of a stream of messages the handler gets it as an `InvalidRequest` where it reads.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler with another way to parse."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler  # type: ignore[no-any-return] # what the next one returned
        parse = handler.request_deserializer
        if handler.request_streaming:
            replaced: Handler = handler._replace(request_deserializer=_raising(parse))
            return replaced
        shape = "unary_stream" if handler.response_streaming else "unary_unary"
        behave = getattr(handler, shape)
        # A stream's handler may also be a coroutine that writes by itself, as health's is.
        wrap = _streaming if inspect.isasyncgenfunction(behave) else _answering
        changed = {"request_deserializer": _marking(parse), shape: wrap(behave)}
        replaced = handler._replace(**changed)
        return replaced


def _raising(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            raise _refusal() from None  # the exception's text is protobuf's

    return parsed


def _marking(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _MALFORMED

    return parsed


def _answering(behave: Callable[[Any, Context], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def answer(request: Any, context: Context) -> Any:
        if request is _MALFORMED:
            await _refuse(context)
        return await behave(request, context)

    return answer


def _streaming(
    behave: Callable[[Any, Context], AsyncGenerator[Any]],
) -> Callable[..., AsyncIterator[Any]]:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        if request is _MALFORMED:
            await _refuse(context)
        async with aclosing(behave(request, context)) as responses:
            async for response in responses:
                yield response

    return stream


async def _refuse(context: Context) -> NoReturn:
    await abort(context, _refusal())


def _refusal() -> InvalidRequest:
    return InvalidRequest("the message cannot be parsed")
