"""An answer survives its decoder: what clients see, and what the next decoder is asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from gateway.answer import pace
from gateway.fleet.router import Endpoint
from gateway.tiers.decoder import DecoderClient
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import (
    InternalError,
    InvalidRequest,
    Overloaded,
    Reason,
    ServiceError,
    Unavailable,
)
from tests.unit.gateway.fakes import FakeDecoder
from tests.unit.gateway.stage import Stage, about_images, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "one two three four five six seven eight"
Pair = tuple[Stage, list[FakeDecoder]]
DRAINING = Unavailable("the decoder is stopping", reason=Reason.DRAINING)


@asynccontextmanager
async def pair(bundle: Bundle, **settings: Any) -> AsyncIterator[Pair]:
    """A stage with two decoders that say the same."""
    async with FakeDecoder(bundle) as one, FakeDecoder(bundle) as other:
        addresses = f"{one.address},{other.address}"
        async with staged(bundle, **{"decoder": addresses, **settings}) as stage:
            one.tokens = other.tokens = stage.tokenizer.encode_text(TEXT)
            yield stage, [one, other]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_pair(bundle: Bundle) -> AsyncIterator[Pair]:
    async with pair(bundle) as made:
        yield made


@pytest.fixture
def fresh(
    module_pair: Pair,
) -> Pair:
    """The module's pair with fresh scripts."""
    stage, decoders = module_pair
    for decoder in decoders:
        decoder.reset()
        decoder.tokens = stage.tokenizer.encode_text(TEXT)
    return stage, decoders


def begun(decoders: list[FakeDecoder]) -> tuple[FakeDecoder, FakeDecoder]:
    """The decoder where an answer began, and the other."""
    first, second = decoders
    if not first.starts or first.starts[0].output_ids:
        first, second = second, first
    return first, second


async def stalled(decoders: list[FakeDecoder]) -> tuple[FakeDecoder, FakeDecoder]:
    """The decoder where an answer began and stands still, and the other, which goes on."""
    waiting = [asyncio.create_task(decoder.stalling.wait()) for decoder in decoders]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    first, second = begun(decoders)
    second.pause_after = second.stall_after = None
    return first, second


def pieces(text: str) -> list[dict[str, Any]]:
    """The events of a stream."""
    lines = (line.removeprefix("data: ") for line in text.split("\n") if line[:6] == "data: ")
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def asked(stage: Stage, **body: Any) -> str:
    """The whole of a streamed answer."""
    options = {"include_usage": True}
    response = await stage.post(messages=user(), stream=True, stream_options=options, **body)
    assert response.status_code == 200, response.text
    return response.text


def said(text: str) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for piece in pieces(text)
        for choice in piece.get("choices", ())
    )


@pytest.mark.parametrize("error", [DRAINING, Unavailable("gone", reason=Reason.LOADING)], ids=str)
async def test_a_stream_goes_on_at_another_decoder(fresh: Pair, error: ServiceError) -> None:
    stage, decoders = fresh
    options: dict[str, Any] = {"logprobs": True, "max_completion_tokens": 50, "seed": 7}
    whole = pieces(await asked(stage, **options))
    for decoder in decoders:
        decoder.starts.clear()
        decoder.failure_once_after = (3, error)
    moved = pieces(await asked(stage, **options))
    first, second = begun(decoders)
    assert [piece["choices"] for piece in moved] == [piece["choices"] for piece in whole]
    assert moved[-1]["usage"] == whole[-1]["usage"]
    start, resumed = first.starts[0], second.starts[0]
    assert list(resumed.output_ids) == list(first.tokens[:3])
    assert resumed.request_id == f"{start.request_id}+1"
    assert resumed.stop_conditions.max_tokens == 50
    assert resumed.sampling_params == start.sampling_params
    for name in ("input_ids", "position_ids", "position_delta", "cache_salt", "tenant"):
        assert getattr(resumed, name) == getattr(start, name)
    metrics = (await stage.http.get("/metrics")).text
    assert f'tandem:gateway_moves_total{{reason="{error.reason}"}}' in metrics


async def test_a_decoder_that_is_killed_in_mid_stream_is_not_noticed(bundle: Bundle) -> None:
    async with pair(bundle) as (stage, decoders):
        for decoder in decoders:
            decoder.pause_after = 2
        asking = asyncio.create_task(asked(stage))
        first, _ = await stalled(decoders)
        await first.die()
        assert said(await asking) == TEXT


async def test_a_seed_is_drawn_once_for_all_decoders_of_an_answer(fresh: Pair) -> None:
    stage, decoders = fresh
    for decoder in decoders:
        decoder.failure_once_after = (1, DRAINING)
    response = await stage.post(messages=user(), temperature=1.0, n=2)
    assert response.status_code == 200, response.text
    starts = [start for decoder in decoders for start in decoder.starts]
    by_choice: dict[str, set[int]] = {}
    for start in starts:
        assert start.sampling_params.HasField("seed")
        choice = start.request_id.partition("+")[0]
        by_choice.setdefault(choice, set()).add(start.sampling_params.seed)
    assert [len(seeds) for seeds in by_choice.values()] == [1, 1]
    assert len(set.union(*by_choice.values())) == 2
    assert len(starts) == 4  # both choices moved


async def test_after_too_many_moves_it_is_an_error_and_never_a_stop(bundle: Bundle) -> None:
    async with pair(bundle, max_moves=2) as (stage, decoders):
        for decoder in decoders:
            decoder.failure_after = (1, DRAINING)
        text = await asked(stage)
        assert '"code":"draining"' in text or '"code":"decoder_unavailable"' in text
        assert "event: error" in text and "[DONE]" not in text
        assert '"finish_reason":"stop"' not in text
        assert sum(len(decoder.starts) for decoder in decoders) == 3


async def test_without_moves_the_first_loss_is_the_error(bundle: Bundle) -> None:
    async with pair(bundle, max_moves=0) as (stage, decoders):
        for decoder in decoders:
            decoder.failure_once_after = (1, DRAINING)
        assert "event: error" in await asked(stage)
        assert sum(len(decoder.starts) for decoder in decoders) == 1


async def test_other_errors_move_nothing(fresh: Pair) -> None:
    stage, decoders = fresh
    for decoder in decoders:
        decoder.failure_once_after = (1, InternalError("internal error"))
    assert '"code":"internal_error"' in await asked(stage)
    assert sum(len(decoder.starts) for decoder in decoders) == 1


async def test_a_call_that_was_not_admitted_is_made_elsewhere(fresh: Pair) -> None:
    stage, decoders = fresh
    decoders[0].failure = DRAINING
    for _ in range(4):
        assert said(await asked(stage)) == TEXT
    assert all(not start.output_ids for start in decoders[1].starts)
    decoders[1].failure = DRAINING
    response = await stage.post(messages=user())
    assert response.status_code == 503


async def test_a_full_queue_refuses_a_new_answer_and_lets_a_moved_one_try_again(
    fresh: Pair,
) -> None:
    stage, decoders = fresh
    for decoder in decoders:
        decoder.failure_once_after = (2, DRAINING)
        decoder.moved_failures = [Overloaded("full", retry_after_s=1.0)]
    assert said(await asked(stage)) == TEXT
    refusals = sum(1 - len(decoder.moved_failures) for decoder in decoders)
    assert refusals >= 1
    assert sum(len(decoder.starts) for decoder in decoders) == 2 + refusals
    for decoder in decoders:
        decoder.failure = Overloaded("full", retry_after_s=1.0)
    assert (await stage.post(messages=user())).status_code == 429


async def test_a_hung_decoder_is_asked_after_and_left(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SUSPECT_AFTER_S", 0.1)
    async with pair(bundle) as (stage, decoders):
        for decoder in decoders:
            decoder.stall_after = 2
            decoder.is_mute = True
        asking = asyncio.create_task(asked(stage))
        first, second = await stalled(decoders)
        assert said(await asking) == TEXT
        assert [len(first.starts), len(second.starts)] == [1, 1]


async def test_a_decoder_that_only_lets_a_sequence_wait_is_not_left(
    fresh: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SUSPECT_AFTER_S", 0.05)
    stage, decoders = fresh
    for decoder in decoders:
        decoder.pause_after = 2
    asking = asyncio.create_task(asked(stage))
    await asyncio.sleep(0.5)  # ten times as long as is suspicious
    for decoder in decoders:
        decoder.resume.set()
    assert said(await asking) == TEXT
    assert sum(len(decoder.starts) for decoder in decoders) == 1


async def test_an_image_that_fails_while_the_decoder_is_asked_after_ends_the_answer(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "SUSPECT_AFTER_S", 0.05)
    async with pair(bundle) as (stage, _):

        async def is_there(client: DecoderClient, endpoint: Endpoint) -> bool:
            stage.vision.release.set()
            await asyncio.sleep(0.3)  # the failure comes meanwhile
            return True

        monkeypatch.setattr(DecoderClient, "is_there", is_there)
        stage.vision.hold = True
        error = InvalidRequest("image is bad", reason=Reason.INVALID_IMAGE, param="image")
        stage.vision.failures_midway = [error]
        async with asyncio.timeout(20.0):
            response = await stage.post(messages=about_images((64, 64)))
        assert response.status_code == 400


async def test_an_answer_waits_for_the_only_decoder_to_come_back(bundle: Bundle) -> None:
    async with staged(bundle, move_wait_s=20.0) as stage:
        tokens = stage.will_say(TEXT)
        stage.decoder.pause_after = 2
        asking = asyncio.create_task(asked(stage))
        await stage.decoder.stalling.wait()
        await stage.decoder.die()
        await asyncio.sleep(0.3)
        async with FakeDecoder(bundle, port=stage.decoder.port) as back:
            back.tokens = tokens
            assert said(await asking) == TEXT
            assert list(back.starts[0].output_ids) == tokens[:2]


async def test_an_answer_that_had_all_its_tokens_ends_without_another_decoder(
    fresh: Pair,
) -> None:
    stage, decoders = fresh
    for decoder in decoders:
        decoder.finish_reason = decoder_pb2.FINISH_REASON_LENGTH
        decoder.failure_once_after = (len(decoder.tokens), DRAINING)
    text = await asked(stage, max_completion_tokens=len(decoders[0].tokens))
    assert said(text) == TEXT
    assert '"finish_reason":"length"' in text
    assert pieces(text)[-1]["usage"]["completion_tokens"] == len(decoders[0].tokens)
    assert sum(len(decoder.starts) for decoder in decoders) == 1


async def test_a_moved_answer_costs_the_vision_tower_nothing_again(bundle: Bundle) -> None:
    async with pair(bundle, embedding_cache_mib=8) as (stage, decoders):
        for decoder in decoders:
            decoder.failure_once_after = (2, DRAINING)
        response = await stage.post(messages=about_images((64, 64), (96, 64)), n=2)
        assert response.status_code == 200, response.text
        assert [choice["message"]["content"] for choice in response.json()["choices"]] == [TEXT] * 2
        assert len(stage.vision.requests) == 2
        metrics = (await stage.http.get("/metrics")).text
        assert "tandem:gateway_embedding_cache_misses_total 2.0" in metrics
        assert "tandem:gateway_embedding_cache_hits_total 6.0" in metrics
        assert "tandem:gateway_embedding_cache_entries 2.0" in metrics


async def test_an_encoding_goes_on_while_its_answer_moves(bundle: Bundle) -> None:
    async with pair(bundle, embedding_cache_mib=8) as (stage, decoders):
        stage.vision.hold = True
        asking = asyncio.create_task(stage.post(messages=about_images((64, 64))))
        await stage.vision.holding.wait()
        first, second = begun(decoders)
        await first.die()
        async with asyncio.timeout(30):
            await second.has_been_asked.wait()
        stage.vision.release.set()
        assert (await asking).status_code == 200
        assert len(stage.vision.requests) == 1
