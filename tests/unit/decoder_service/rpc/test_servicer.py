"""The servicer over gRPC in this process, on a fake runner."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from decoder_service.app import Loaded, serve_loaded
from decoder_service.cache.memory import MemoryPlan
from decoder_service.config import DecoderConfig
from decoder_service.rpc.request import RequestLimits, request_from_proto
from protos.bundle.manifest import Bundle
from protos.process.main import ServiceProcess
from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc
from protos.wire import tensors
from protos.wire.channels import is_serving
from protos.wire.errors import InvalidRequest, Reason, from_rpc_error
from tests.support.manifests import small_manifest
from tests.unit.decoder_service.fakes import (
    HIDDEN,
    LEVELS,
    PLACEHOLDER,
    VOCAB,
    FakeRunner,
    make_executor,
)

MAX_CONTEXT = 64


def make_bundle(folder: Path) -> Bundle:
    manifest = small_manifest(
        text={
            "hidden_size": HIDDEN,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": HIDDEN,
            "vocab_size": VOCAB,
            "max_position_embeddings": MAX_CONTEXT,
        },
        vision={"out_hidden_size": HIDDEN, "deepstack_visual_indexes": tuple(range(LEVELS))},
        special_tokens={
            "image": PLACEHOLDER,
            "video": PLACEHOLDER - 1,
            "vision_start": PLACEHOLDER - 2,
            "vision_end": PLACEHOLDER - 3,
            "eos": (PLACEHOLDER - 4,),
        },
    )
    return Bundle(path=folder, manifest=manifest, digest="d" * 64)


@contextlib.asynccontextmanager
async def served(
    folder: Path, process: ServiceProcess | None = None
) -> AsyncIterator[tuple[grpc.aio.Channel, FakeRunner]]:
    executor, runner = make_executor(folder, max_sequences=2, max_length=MAX_CONTEXT)
    plan = MemoryPlan(
        max_sequences=2,
        max_context=MAX_CONTEXT,
        kv_tokens=6 * MAX_CONTEXT,
        token_bytes=1,
        budget_bytes=6 * MAX_CONTEXT,
    )
    loaded = Loaded(bundle=make_bundle(folder), plan=plan, executor=executor)
    config = DecoderConfig(bundle=str(folder), port=0, drain_timeout_s=0.2)
    server = GrpcServer(host="127.0.0.1", port=0, drain_timeout_s=0.2, reflection=True)
    process = process or ServiceProcess("decoder")
    serving = asyncio.create_task(serve_loaded(config, server, loaded, process))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        await channel.channel_ready()
        yield channel, runner
    process.stop.set()
    await serving


def start(request_id: str, length: int = 5) -> decoder_pb2.GenerateRequest:
    positions = np.tile(np.arange(length, dtype=np.int32), (3, 1))
    message = decoder_pb2.GenerateStart(
        request_id=request_id,
        input_ids=[1] * length,
        position_ids=tensors.to_proto(positions),
    )
    message.sampling_params.temperature = 0
    message.stop_conditions.max_tokens = 4
    message.stop_conditions.ignore_eos = True
    return decoder_pb2.GenerateRequest(start=message)


async def until_serving(channel: grpc.aio.Channel, wanted: bool) -> None:
    async def poll() -> None:
        while await is_serving(channel) is not wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # health is asked over the wire: there is no event

    await asyncio.wait_for(poll(), 10)


async def until_in_flight(stub: decoder_pb2_grpc.DecoderServiceStub, count: int) -> None:
    async def poll() -> None:
        while True:
            load = await stub.GetLoad(decoder_pb2.GetLoadRequest())
            if load.running_count + load.waiting_count == count:
                return
            await asyncio.sleep(0.01)  # load is asked over the wire: there is no event

    await asyncio.wait_for(poll(), 10)


async def test_a_stream_is_admission_tokens_completion(tmp_path: Path) -> None:
    async with served(tmp_path) as (channel, _):
        call = decoder_pb2_grpc.DecoderServiceStub(channel).Generate()
        await call.write(start("a"))
        await call.done_writing()
        kinds = []
        while (message := await call.read()) is not grpc.aio.EOF:
            kinds.append(message.WhichOneof("payload"))
        assert kinds[0] == "admission" and kinds[-1] == "completion"
        assert set(kinds[1:-1]) == {"tokens"}


async def test_a_token_before_a_constraint_needs_one_and_is_in_the_vocabulary(
    tmp_path: Path,
) -> None:
    limits = RequestLimits(
        bundle=make_bundle(tmp_path), max_context=MAX_CONTEXT, allow_logits=False
    )
    held = decoder_pb2.Constraint(regex="a")
    for asked in (
        {"constraint_after_token": 1},
        {"constraint_after_token": VOCAB, "constraint": held},
        {"constraint_after_token": -1, "constraint": held},
    ):
        message = start("a").start
        message.MergeFrom(decoder_pb2.GenerateStart(**asked))
        with pytest.raises(InvalidRequest) as caught:
            request_from_proto(message, limits)
        assert caught.value.param == "constraint_after_token"


async def test_an_output_that_is_there_already_is_checked_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    limits = RequestLimits(bundle=bundle, max_context=MAX_CONTEXT, allow_logits=False)
    (eos,) = bundle.manifest.special_tokens.eos
    for output_ids in ([1, VOCAB], [-1], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, eos], [1, 7]):
        message = start("a").start  # four tokens at most
        message.stop_conditions.ignore_eos = False
        message.stop_conditions.stop_token_ids.append(7)
        message.output_ids.extend(output_ids)
        with pytest.raises(InvalidRequest) as caught:
            request_from_proto(message, limits)
        assert caught.value.param == "output_ids"
    message = start("a").start
    message.output_ids.extend([1, eos])  # which does not end it
    assert request_from_proto(message, limits).output_ids.tolist() == [1, eos]


async def test_an_output_goes_on_and_is_counted_as_a_whole(tmp_path: Path) -> None:
    async def tokens(output_ids: list[int]) -> tuple[list[int], decoder_pb2.Completion]:
        message = start("a", length=9)
        message.start.output_ids.extend(output_ids)
        call = decoder_pb2_grpc.DecoderServiceStub(channel).Generate()
        await call.write(message)
        came: list[int] = []
        while (answer := await call.read()) is not grpc.aio.EOF:
            came += answer.tokens.token_ids
            last = answer.completion
        return came, last

    async with served(tmp_path) as (channel, _):
        whole, _ = await tokens([])
        rest, completion = await tokens(whole[:3])
        assert rest == whole[3:]
        assert (completion.prompt_tokens, completion.completion_tokens) == (9, 4)
        assert completion.cached_tokens == 9


async def test_a_client_need_not_half_close_a_text_request(tmp_path: Path) -> None:
    async with served(tmp_path) as (channel, _):
        call = decoder_pb2_grpc.DecoderServiceStub(channel).Generate()
        await call.write(start("a"))
        while (message := await call.read()) is not grpc.aio.EOF:
            last = message
        assert last.completion.completion_tokens == 4
        assert await call.code() is grpc.StatusCode.OK


async def test_of_twelve_calls_with_one_id_eleven_already_exist(tmp_path: Path) -> None:
    async with served(tmp_path) as (channel, runner):
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        runner.gate.clear()  # so that the one that is served stays in flight
        calls = [stub.Generate() for _ in range(12)]
        for call in calls:
            await call.write(start("one"))
        results = await asyncio.gather(*(call.read() for call in calls), return_exceptions=True)
        runner.gate.set()
        errors = [result for result in results if isinstance(result, grpc.RpcError)]
        assert len(errors) == 11
        assert {error.code() for error in errors} == {grpc.StatusCode.ALREADY_EXISTS}
        told = {(error.reason, error.param) for error in map(from_rpc_error, errors)}
        assert told == {(Reason.REQUEST_ID_IN_USE, "request_id")}


async def test_a_dead_engine_fails_streams_with_internal_and_health_says_so(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (channel, runner):
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        await until_serving(channel, True)
        runner.gate.clear()
        calls = [stub.Generate() for _ in range(2)]
        for index, call in enumerate(calls):
            await call.write(start(f"r{index}"))
        await until_in_flight(stub, 2)
        runner.fail_decode = True
        runner.gate.set()
        for call in calls:
            with pytest.raises(grpc.RpcError) as caught:
                while await call.read() is not grpc.aio.EOF:
                    pass
                raise AssertionError(f"ended with {await call.code()}")
            assert from_rpc_error(caught.value).reason is Reason.INTERNAL
        await until_serving(channel, False)
        late = stub.Generate()
        await late.write(start("late"))
        assert await late.code() is grpc.StatusCode.UNAVAILABLE


async def test_streams_that_outlive_the_drain_are_told_so(tmp_path: Path) -> None:
    process = ServiceProcess("decoder")
    async with served(tmp_path, process) as (channel, runner):
        runner.gate.clear()
        call = decoder_pb2_grpc.DecoderServiceStub(channel).Generate()
        await call.write(start("slow"))
        await call.read()
        process.stop.set()
        with pytest.raises(grpc.RpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert from_rpc_error(caught.value).reason is Reason.DRAINING
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        runner.gate.set()
