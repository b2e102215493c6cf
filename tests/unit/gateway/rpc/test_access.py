"""Who may call the gRPC door, and what it says of itself to who may not."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from gateway.app import SERVICE
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import gateway_pb2
from protos.wire.channels import channel_options, is_serving
from protos.wire.errors import Reason, from_rpc_error
from tests.unit.gateway.rpc.test_servicer import complete, failure, request
from tests.unit.gateway.stage import Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="module")

RIGHT = (("authorization", "Bearer s3cret"),)
WRONG = (("authorization", "Bearer nope"),)


async def test_the_key_is_wanted_here_too(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret") as stage:
        stage.will_say("Hi")
        assert await failure(stage, request("hi")) is Reason.INVALID_API_KEY
        assert await failure(stage, request("hi"), metadata=WRONG) is Reason.INVALID_API_KEY
        with pytest.raises(grpc.aio.AioRpcError):
            await stage.grpc.Prepare(gateway_pb2.PrepareRequest())
        assert await complete(stage, request("hi"), metadata=RIGHT)


@pytest.mark.parametrize("api_key", ["s3cret", None])
@pytest.mark.parametrize("metadata", [RIGHT + RIGHT, WRONG + RIGHT, RIGHT + WRONG])
async def test_of_two_keys_none_is_chosen(
    bundle: Bundle, api_key: str | None, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with staged(bundle, api_key=api_key) as stage:
        assert await failure(stage, request("hi"), metadata=metadata) is Reason.INVALID_PARAMETER
        assert stage.decoder.starts == []


async def test_reflection_needs_the_key_like_any_call(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret", reflection=True) as stage:
        for metadata, reason in (
            ((), Reason.INVALID_API_KEY),
            (WRONG, Reason.INVALID_API_KEY),
            (RIGHT + RIGHT, Reason.INVALID_PARAMETER),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _listed(stage, metadata)
            assert from_rpc_error(refused.value).reason is reason
        names = {SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME}
        assert await _listed(stage, RIGHT) == names
        await _until(stage, serving=True)  # without a key, as load balancers ask


async def test_reflection_is_open_where_no_key_is_set(bundle: Bundle) -> None:
    async with staged(bundle, reflection=True) as stage:
        assert SERVICE in await _listed(stage, ())


async def test_grpc_health_follows_the_decoder(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        await _until(stage, serving=True)
        await stage.decoder.die()
        await _until(stage, serving=False)


async def test_grpc_health_waits_for_the_vision_tier_as_readiness_does(bundle: Bundle) -> None:
    async with staged(bundle, vision="127.0.0.1:9") as stage:
        stage.will_say("Hi")
        assert await complete(stage, request("hi"))  # so the gateway knows its decoder
        await asyncio.sleep(0.15)  # three times the interval at which health is told
        assert (await stage.http.get("/health/ready")).status_code == 503
        assert await _is_serving(stage) is False


async def test_grpc_health_stays_when_the_vision_tier_goes(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        await _until(stage, serving=True)
        await stage.vision.__aexit__()
        await asyncio.sleep(0.15)
        assert await _is_serving(stage) is True


async def _until(stage: Stage, *, serving: bool) -> None:
    async with asyncio.timeout(20):
        while True:
            if await _is_serving(stage) is serving:
                return
            await asyncio.sleep(0.02)


def _channel(stage: Stage) -> grpc.aio.Channel:
    address = f"127.0.0.1:{stage.gateway.grpc_port}"
    return grpc.aio.insecure_channel(address, options=channel_options())


async def _is_serving(stage: Stage) -> bool:
    async with _channel(stage) as channel:
        return await is_serving(channel)


async def _listed(stage: Stage, metadata: tuple[tuple[str, str], ...]) -> set[str]:
    """Names of the services, as reflection tells them."""
    async with _channel(stage) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = [
            answer
            async for answer in stub.ServerReflectionInfo([asked], metadata=metadata, timeout=20)
        ]
    return {entry.name for entry in answer.list_services_response.service}
