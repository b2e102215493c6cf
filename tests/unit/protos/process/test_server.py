"""Where a server listens: every form of address works, a wrong one is told for what it is."""

import grpc
import pytest

from protos.process.server import BindError, GrpcServer, PortTaken, bind
from protos.wire.addresses import join
from protos.wire.channels import is_serving

HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")


@pytest.mark.parametrize("host", HOSTS)
def test_a_socket_listens_on_every_form_of_address(host: str) -> None:
    with bind(host, 0) as listening:
        assert listening.getsockname()[1] > 0


@pytest.mark.parametrize("host", HOSTS)
async def test_a_grpc_server_answers_on_every_form_of_address(host: str) -> None:
    async with GrpcServer(host=host, port=0, drain_timeout_s=0) as server:
        await server.set_serving(True)
        async with grpc.aio.insecure_channel(join(host, server.port)) as channel:
            assert await is_serving(channel, timeout_s=20)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_port_is_told_as_taken(host: str) -> None:
    with bind(host, 0) as listening, pytest.raises(PortTaken, match="already in use"):
        bind(host, listening.getsockname()[1])


@pytest.mark.parametrize("host", ["1.2.3.4", "2001:db8::1"])
def test_an_address_of_another_machine_is_told_as_such(host: str) -> None:
    with pytest.raises(BindError, match="not an address of this machine") as refused:
        bind(host, 0)
    assert not isinstance(refused.value, PortTaken)


def test_a_name_that_leads_nowhere_is_told_as_such() -> None:
    with pytest.raises(BindError, match="neither an address nor a known name"):
        bind("no such host", 0)
