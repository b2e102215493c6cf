"""One decoder process over gRPC, in an environment without torch and transformers."""

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire.channels import is_serving
from protos.wire.errors import Overloaded, Reason, ServiceError, from_rpc_error
from tests.e2e.decoder_client import (
    DecoderClient,
    WriteRaced,
    connected,
    make_features,
    make_start,
    text_ids,
    to_chunks,
    until,
)
from tests.e2e.decoder_environment import lone_decoder
from tests.e2e.malformed import Malformed, conversations, starts
from tests.support.bundles import bundle as make_bundle
from tests.support.decoder_process import DecoderProcess

MAX_CONTEXT = 1024
SLOTS = 3


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(make_bundle("tied", "fp32"))


@pytest.fixture(scope="module")
def process(
    decoder_python: Path, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DecoderProcess]:
    with lone_decoder(
        decoder_python,
        bundle.path,
        tmp_path_factory.mktemp("decoder") / "log",
        *("--threads=1", f"--max-sequences={SLOTS}", f"--max-context={MAX_CONTEXT}"),
        *("--max-waiting=1", "--features-timeout-s=1.5", "--mixed-chunk-tokens=16"),
    ) as running:
        yield running


@pytest.fixture
async def client(process: DecoderProcess) -> AsyncIterator[DecoderClient]:
    async with connected(process.port) as client:
        yield client


async def wait_for_load(client: DecoderClient, *, running: int, waiting: int = 0) -> None:
    async def matches() -> bool:
        load = await client.load()
        return load.running_count == running and load.waiting_count == waiting

    await until(matches)


def test_torch_and_transformers_are_not_there(decoder_python: Path) -> None:
    names = "torch transformers torchvision ray tokenizers onnxruntime_genai onnx safetensors"
    script = (
        "import importlib.util, decoder_service.__main__\n"
        f"print([n for n in {names.split()} if importlib.util.find_spec(n)])"
    )
    output = subprocess.run(
        [decoder_python, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert output.stdout.strip() == "[]"


async def test_a_image_is_answered_and_changes_the_answer(
    client: DecoderClient, bundle: Bundle
) -> None:
    start = make_start(bundle.manifest, "a", spans=[(4, 7), (13, 2)], max_tokens=24)
    answers = []
    for seed in (1, 1, 2):
        chunks = to_chunks(make_features(bundle.manifest, 7, seed), 0)
        chunks += to_chunks(make_features(bundle.manifest, 2, seed + 10), 1)
        random.Random(seed).shuffle(chunks)
        answers.append(await client.generate(start, chunks))
    first, again, other = answers
    assert first.admission is not None and list(first.admission.needed_spans) == [0, 1]
    assert first.token_ids == again.token_ids != other.token_ids
    assert first.completion is not None
    assert len(first.token_ids) == first.completion.completion_tokens == 24
    assert first.completion.prompt_tokens == 20
    assert first.completion.finish_reason == decoder_pb2.FINISH_REASON_LENGTH
    timings = first.completion.timings
    assert 0 < timings.features_ms < timings.first_token_ms
    assert timings.prefill_ms > 0 and timings.decode_ms > 0


async def test_model_info_and_load_tell_what_is_served(
    client: DecoderClient, bundle: Bundle
) -> None:
    info = await client.stub.GetModelInfo(decoder_pb2.GetDecoderModelInfoRequest())
    assert info.bundle_digest == bundle.digest
    assert info.max_context == MAX_CONTEXT
    assert info.hidden_size == bundle.manifest.text.hidden_size
    assert info.deepstack_level_count == bundle.manifest.deepstack_level_count
    load = await client.load()
    assert load.slot_count == SLOTS and load.kv_token_capacity >= MAX_CONTEXT


async def test_prompts_may_leave_room_for_exactly_one_token(
    client: DecoderClient, bundle: Bundle
) -> None:
    ids = text_ids(bundle.manifest, MAX_CONTEXT - 1)
    start = make_start(bundle.manifest, "long", ids=ids, max_tokens=50)
    answer = await client.generate(start)
    assert len(answer.token_ids) == 1
    assert answer.completion is not None
    assert answer.completion.finish_reason == decoder_pb2.FINISH_REASON_LENGTH


async def test_logprobs_and_seeds_are_reported_and_kept(
    client: DecoderClient, bundle: Bundle
) -> None:
    start = make_start(bundle.manifest, "seeded", max_tokens=30)
    start.sampling_params.temperature = 1.2
    start.sampling_params.top_k = 50
    start.sampling_params.seed = -5
    start.report_options.logprobs = True
    start.report_options.top_logprob_count = 3
    alone = await client.generate(start)
    noise = make_start(bundle.manifest, "noise", max_tokens=200)
    noise.sampling_params.temperature = 1
    together, _ = await asyncio.gather(client.generate(start), client.generate(noise))
    assert together.token_ids == alone.token_ids
    assert len(alone.logprobs) == 30
    for token, entry in zip(alone.token_ids, alone.logprobs, strict=True):
        tops = [top.logprob for top in entry.top]
        assert len(tops) == 3 and tops == sorted(tops, reverse=True)
        assert entry.logprob <= tops[0] <= 0
        for top in entry.top:
            assert top.token_id != token or top.logprob == pytest.approx(entry.logprob)


async def refusal(client: DecoderClient, case: Malformed) -> ServiceError | None:
    while True:
        try:
            await client.converse(case.messages)
        except ServiceError as error:
            return error
        except WriteRaced:
            continue
        return None


async def test_malformed_requests_are_refused_by_name_and_disturb_no_stream(
    client: DecoderClient, bundle: Bundle, process: DecoderProcess
) -> None:
    manifest = bundle.manifest
    canary = make_start(manifest, "canary", max_tokens=60)
    expected = (await client.generate(canary)).token_ids
    cases = [*starts(manifest, MAX_CONTEXT), *conversations(manifest)]
    done, wrong = asyncio.Event(), []

    async def sing() -> int:
        songs = 0
        while not done.is_set():
            assert (await client.generate(canary)).token_ids == expected
            songs += 1
        return songs

    singing = asyncio.create_task(sing())
    for case in cases:
        error = await refusal(client, case)
        if error is None or (error.reason, error.param) != (case.reason, case.param):
            wrong.append((case.name, error and (error.reason, error.param, error.message)))
    done.set()
    assert wrong == []
    assert await singing > 0
    await wait_for_load(client, running=0)
    assert process.process.poll() is None
    assert len(cases) > 80


async def test_random_bytes_are_refused_and_the_process_lives(
    client: DecoderClient, bundle: Bundle, process: DecoderProcess
) -> None:
    rng = random.Random(1)
    good = decoder_pb2.GenerateRequest(
        start=make_start(bundle.manifest, "fuzz", spans=[(4, 7)], max_tokens=2)
    ).SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        method: Any = channel.stream_stream("/tandem.v1.DecoderService/Generate")
        for _ in range(300):
            data = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 200)))
            for _ in range(rng.randrange(1, 6)):
                place = rng.randrange(len(data))
                data[place : place + 4] = rng.randbytes(rng.randrange(1, 9))
            call = method(timeout=10)
            await call.write(bytes(data))
            await call.done_writing()
            assert await call.code() is not grpc.StatusCode.UNAVAILABLE
    assert process.process.poll() is None
    await wait_for_load(client, running=0)
    await client.generate(make_start(bundle.manifest, "after"))


async def test_the_context_error_counts_tokens(client: DecoderClient, bundle: Bundle) -> None:
    start = make_start(bundle.manifest, "long", ids=[1] * 1500)
    with pytest.raises(ServiceError, match=r"1500 tokens.* 1023") as caught:
        await client.generate(start)
    assert caught.value.reason is Reason.CONTEXT_LENGTH_EXCEEDED


async def test_a_request_id_in_flight_is_not_taken_twice(
    client: DecoderClient, bundle: Bundle
) -> None:
    start = make_start(bundle.manifest, "same", spans=[(4, 7)])
    call = client.open()
    await call.write(decoder_pb2.GenerateRequest(start=start))
    await call.read()
    with pytest.raises(ServiceError) as caught:
        await client.generate(start)
    assert (caught.value.reason, caught.value.param) == (Reason.REQUEST_ID_IN_USE, "request_id")
    call.cancel()
    await wait_for_load(client, running=0)
    await client.generate(start, to_chunks(make_features(bundle.manifest, 7)))


async def test_a_cancelled_stream_frees_its_slot(client: DecoderClient, bundle: Bundle) -> None:
    start = make_start(bundle.manifest, "cancelled", max_tokens=900)
    call = client.open()
    await call.write(decoder_pb2.GenerateRequest(start=start))
    for _ in range(3):
        await call.read()
    assert (await client.load()).running_count == 1
    call.cancel()
    await wait_for_load(client, running=0)
    assert (await client.load()).kv_token_count == 0


async def test_a_passed_deadline_frees_its_slot(client: DecoderClient, bundle: Bundle) -> None:
    start = make_start(bundle.manifest, "late", spans=[(4, 7)])
    call = client.open(timeout_s=0.3)
    await call.write(decoder_pb2.GenerateRequest(start=start))
    with pytest.raises(grpc.RpcError) as caught:
        async for _ in call:
            pass
    assert from_rpc_error(caught.value).reason is Reason.DEADLINE_EXCEEDED
    await wait_for_load(client, running=0)


async def test_features_that_stall_end_the_call(client: DecoderClient, bundle: Bundle) -> None:
    start = make_start(bundle.manifest, "stalled", spans=[(4, 7)])
    messages = [decoder_pb2.GenerateRequest(start=start)]
    messages += to_chunks(make_features(bundle.manifest, 7))[:2]
    with pytest.raises(ServiceError) as caught:
        await client.converse(messages, half_close=False)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert caught.value.param == "features"
    await wait_for_load(client, running=0)


async def test_a_full_queue_is_refused_with_a_delay(client: DecoderClient, bundle: Bundle) -> None:
    calls = []
    for index in range(SLOTS + 1):
        start = make_start(bundle.manifest, f"hold{index}", spans=[(4, 7)])
        call = client.open()
        await call.write(decoder_pb2.GenerateRequest(start=start))
        await call.read()
        calls.append(call)
    await wait_for_load(client, running=SLOTS, waiting=1)
    with pytest.raises(Overloaded) as caught:
        await client.generate(make_start(bundle.manifest, "refused"))
    assert caught.value.reason is Reason.QUEUE_FULL
    assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
    for call in calls:
        call.cancel()
    await wait_for_load(client, running=0)
    await client.generate(make_start(bundle.manifest, "welcome"))


async def test_one_line_is_logged_per_request(
    client: DecoderClient, bundle: Bundle, process: DecoderProcess
) -> None:
    await client.generate(make_start(bundle.manifest, "logged-once", max_tokens=5))

    async def lines() -> list[str]:
        text = await asyncio.to_thread(process.log.read_text)
        return [line for line in text.splitlines() if "request id=logged-once" in line]

    async def is_logged() -> bool:
        return bool(await lines())

    await until(is_logged)
    (line,) = await lines()
    wanted = {"tier=decoder", "outcome=length", "prompt_tokens=20", "completion_tokens=5"}
    assert wanted <= set(line.split())
    assert all(f" {name}=" in line for name in ("cached_tokens", "first_token_ms", "queue_ms"))


async def test_health_says_serving(process: DecoderProcess) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{process.port}") as channel:
        assert await is_serving(channel)
