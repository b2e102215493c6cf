"""Messages that cannot be parsed: refused as any bad request, by whoever may send one at all.

gRPC itself answers them with UNKNOWN and the exception's text, before a key is looked at, and
writes a traceback for each into the log.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError, Message

from protos.wire.errors import InvalidRequest

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in its stubs alone


class Parsing(grpc.aio.ServerInterceptor):
    """Lets a handler see in place of a message that cannot be parsed one that `check` refuses."""

    def __init__(self) -> None:
        # One for each deserializer: a message takes no attribute that would say what it is.
        self._malformed: dict[Callable[[bytes], Message], Message] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The method's own handler with another way to parse."""
        handler: Any = await continuation(handler_call_details)
        parse = None if handler is None else handler.request_deserializer
        if parse is None:
            return handler  # type: ignore[no-any-return] # what the next one returned

        def parsed(data: bytes) -> Message:
            try:
                return parse(data)  # type: ignore[no-any-return] # a message of the method
            except DecodeError:
                return self._malformed.setdefault(parse, parse(b""))

        replaced: Handler = handler._replace(request_deserializer=parsed)
        return replaced

    def check(self, request: Message) -> None:
        """Checks that a message is what the client sent.

        Raises:
            InvalidRequest: it could not be parsed.
        """
        if any(request is one for one in self._malformed.values()):
            raise InvalidRequest("the message cannot be parsed")
