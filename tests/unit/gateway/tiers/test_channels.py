"""Channels to the addresses of a tier, and what calls over them."""

from gateway.fleet.router import Endpoint
from gateway.tiers.watch import Channels
from protos.tandem.v1 import decoder_pb2_grpc
from protos.wire.credentials import CredentialFiles, Credentials

Stub = decoder_pb2_grpc.DecoderServiceStub


async def test_an_address_that_came_back_is_called_over_its_new_channel() -> None:
    channels, endpoint = Channels(CredentialFiles(Credentials())), Endpoint("127.0.0.1:1")
    first = channels.stub(endpoint, Stub)
    assert channels.stub(endpoint, Stub) is first
    for now_s in (0.0, 1000.0):  # unused for long
        await channels.close_unused((), now_s=now_s)
    assert not channels
    assert channels.stub(endpoint, Stub) is not first
    await channels.close()
    assert channels.stub(endpoint, Stub) is not first
    await channels.close()
