"""Every error a server raises arrives at the client as the same error."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc
from protos.wire.channels import channel_options, is_serving
from protos.wire.errors import (
    ERROR_TABLE,
    InternalError,
    Reason,
    ServiceError,
    error_for,
    from_rpc_error,
    reporting_errors,
)


class FailingDecoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Streams two messages, then raises what it was given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def Generate(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async with reporting_errors(context):
            yield decoder_pb2.GenerateResponse(admission=decoder_pb2.Admission())
            yield decoder_pb2.GenerateResponse(tokens=decoder_pb2.TokenChunk(token_ids=[1]))
            raise self.error


async def error_at_client(error: Exception) -> tuple[int, ServiceError]:
    rpc = GrpcServer(host="127.0.0.1", port=0, drain_timeout_s=0)
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(FailingDecoder(error), rpc.server)
    async with rpc:
        address = f"127.0.0.1:{rpc.port}"
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            call = decoder_pb2_grpc.DecoderServiceStub(channel).Generate(iter(()))
            received = 0
            try:
                async for _ in call:
                    received += 1
            except grpc.RpcError as caught:
                return received, from_rpc_error(caught)
    raise AssertionError("the stream ended without an error")


def test_every_reason_has_a_row() -> None:
    assert set(ERROR_TABLE) == set(Reason)


@pytest.mark.parametrize("reason", sorted(Reason))
async def test_an_error_arrives_whole_after_streamed_messages(reason: Reason) -> None:
    error = error_for(reason, "field x is 3, expected 4", param="x", retry_after_s=1.5)
    received, arrived = await error_at_client(error)
    assert received == 2
    assert type(arrived) is type(error)
    assert (arrived.reason, arrived.message) == (reason, error.message)
    assert (arrived.param, arrived.retry_after_s) == ("x", 1.5)


async def test_a_bug_reaches_the_client_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    received, arrived = await error_at_client(KeyError("/secret/path"))
    assert received == 2
    assert type(arrived) is InternalError
    assert "secret" not in arrived.message
    assert "secret" in caplog.text


async def test_an_unreachable_peer_is_unavailable_without_its_address() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1", options=channel_options()) as channel:
        assert not await is_serving(channel)
        with pytest.raises(grpc.RpcError) as caught:
            await decoder_pb2_grpc.DecoderServiceStub(channel).GetLoad(
                decoder_pb2.GetLoadRequest(), timeout=30
            )
    error = from_rpc_error(caught.value, unavailable=Reason.DECODER_UNAVAILABLE)
    assert error.reason is Reason.DECODER_UNAVAILABLE
    assert "127.0.0.1" not in error.message


async def test_health_says_not_serving_until_told() -> None:
    rpc = GrpcServer(host="127.0.0.1", port=0, drain_timeout_s=0)
    async with rpc:
        address = f"127.0.0.1:{rpc.port}"
        async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
            assert not await is_serving(channel)
            await rpc.set_serving(True)
            assert await is_serving(channel)
