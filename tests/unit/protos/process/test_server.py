"""Where a server listens: every form of address works, a wrong one is told for what it is."""

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.process.server import BindError, GrpcServer, PortTaken, bind
from protos.wire.addresses import join
from protos.wire.channels import is_serving

HOSTS = ("127.0.0.1", "localhost", "::1", "[::1]")


@pytest.mark.parametrize("host", HOSTS)
def test_a_socket_listens_on_every_form_of_address(host: str) -> None:
    with bind(host, 0) as listening:
        assert listening.getsockname()[1] > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_answers_leave_at_once_however_they_are_written(host: str) -> None:
    accepted = asyncio.Queue[asyncio.StreamWriter]()

    def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.put_nowait(writer)

    listening = bind(host, 0)
    async with await asyncio.start_server(note, sock=listening):
        _, client = await asyncio.open_connection(host, listening.getsockname()[1])
        writer = await accepted.get()
        connection = writer.get_extra_info("socket")
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.close()
        writer.close()


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


async def _health(channel: grpc.aio.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return int((await stub.Check(request, timeout=20)).status)


async def test_health_is_told_by_the_name_of_each_service() -> None:
    response = health_pb2.HealthCheckResponse
    async with (
        GrpcServer(host="127.0.0.1", port=0, services=("a.B",), drain_timeout_s=0) as server,
        grpc.aio.insecure_channel(join("127.0.0.1", server.port)) as channel,
    ):
        assert await _health(channel, "a.B") == response.NOT_SERVING
        await server.set_serving(True)
        assert [await _health(channel, name) for name in ("", "a.B")] == [response.SERVING] * 2
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await _health(channel, "a.C")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_everything_that_is_served() -> None:
    async with (
        GrpcServer(host="127.0.0.1", port=0, services=("a.B",), reflection=True) as server,
        grpc.aio.insecure_channel(join("127.0.0.1", server.port)) as channel,
    ):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(timeout=20)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        listed = (await call.read()).list_services_response.service
        call.cancel()
    assert {entry.name for entry in listed} == {
        "a.B",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
