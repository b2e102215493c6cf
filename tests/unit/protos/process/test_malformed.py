"""Messages that cannot be parsed get the answer of any bad request, in every shape of method."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue

from protos.process.malformed import Malformed
from protos.process.server import GrpcServer
from protos.wire.errors import Reason, from_rpc_error, reporting_errors

BROKEN = b"\xff\xff\xff"
SHAPES = {
    "Answer": grpc.unary_unary_rpc_method_handler,
    "Stream": grpc.unary_stream_rpc_method_handler,
    "Write": grpc.unary_stream_rpc_method_handler,
    "Gather": grpc.stream_unary_rpc_method_handler,
    "Both": grpc.stream_stream_rpc_method_handler,
}


class Echo:
    """Every shape of method says what it hears; none hears what cannot be parsed."""

    async def Answer(self, request: StringValue, context: Any) -> StringValue:
        return request

    async def Stream(self, request: StringValue, context: Any) -> AsyncIterator[StringValue]:
        yield request

    async def Write(self, request: StringValue, context: Any) -> None:
        await context.write(request)

    async def Gather(self, requests: AsyncIterator[StringValue], context: Any) -> StringValue:
        async with reporting_errors(context):
            return [request async for request in requests][-1]

    async def Both(self, requests: AsyncIterator[StringValue], context: Any) -> None:
        async with reporting_errors(context):
            while (request := await context.read()) is not grpc.aio.EOF:
                await context.write(request)


@pytest_asyncio.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    echo, server = Echo(), GrpcServer(host="127.0.0.1", port=0, interceptors=(Malformed(),))
    handlers = {
        name: shape(
            getattr(echo, name),
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )
        for name, shape in SHAPES.items()
    }
    generic = grpc.method_handlers_generic_handler("test.Echo", handlers)
    server.server.add_generic_rpc_handlers((generic,))
    async with server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


async def said(channel: grpc.aio.Channel, name: str, *messages: bytes) -> list[bytes]:
    """What a method answers; all are called as streams, which the wire does not tell apart."""
    method: Any = channel.stream_stream(f"/test.Echo/{name}")
    return [answer async for answer in method(iter(messages), timeout=20)]


@pytest.mark.parametrize("name", SHAPES)
async def test_what_can_be_parsed_is_answered(channel: grpc.aio.Channel, name: str) -> None:
    good = StringValue(value="hello").SerializeToString()
    assert await said(channel, name, good) == [good]


@pytest.mark.parametrize("name", SHAPES)
async def test_what_cannot_be_parsed_is_an_invalid_argument(
    channel: grpc.aio.Channel, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await said(channel, name, BROKEN)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(refused.value).reason is Reason.INVALID_PARAMETER
    assert "protobuf" not in str(refused.value.details())
    assert not caplog.records
