"""What fails alone, and what ends the engine with every stream told."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from decoder_service.schedule.residency import Admission
from decoder_service.sequence.sequence import Sequence
from protos.wire.errors import InvalidRequest, Reason, ServiceError
from tests.unit.decoder_service.engines import collect, is_idle, run, running_engine, until
from tests.unit.decoder_service.fakes import EMBEDDINGS, VOCAB, make_request


async def test_a_failing_prompt_fails_alone(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, runner):
        good = make_request([1, 2, 3], max_tokens=20)
        expected = await run(engine, good)
        runner.fail_on = EMBEDDINGS[9]
        beside = asyncio.create_task(run(engine, good))
        with pytest.raises(ServiceError) as caught:
            await run(engine, make_request([9, 1], request_id="bad"))
        assert caught.value.reason is Reason.INTERNAL
        assert await beside == expected
        await until(is_idle(engine))


async def test_a_row_that_cannot_be_sampled_fails_alone(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, runner):
        good = make_request([1, 2, 3], max_tokens=20, sampling={"temperature": 1.0, "seed": 4})
        expected = await run(engine, good)
        runner.gate.clear()
        beside = asyncio.create_task(run(engine, good))
        # Out of the vocabulary: validation refuses it, so only a bug could bring it here.
        bias = {"logit_bias": ((VOCAB + 5, 1.0),)}
        bad = asyncio.create_task(
            run(engine, make_request([4, 5, 6], request_id="bad", sampling=bias))
        )
        await until(lambda: engine.load().running_count + engine.load().waiting_count == 2)
        runner.gate.set()
        with pytest.raises(ServiceError) as caught:
            await bad
        assert caught.value.reason is Reason.INTERNAL
        assert await beside == expected


async def test_features_that_overflow_fail_their_sequence_alone(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, _):
        good = make_request([1, 2, 3], max_tokens=20)
        expected = await run(engine, good)
        beside = asyncio.create_task(run(engine, good))
        stream = engine.submit(make_request([4, 4, 4], span_places=[(1, 1)], request_id="bad"))
        stream.set_features(0, np.full((3, 1, 8), np.nan, np.float32))
        with pytest.raises(InvalidRequest) as caught:
            await collect(stream)
        assert caught.value.reason is Reason.NON_FINITE
        assert await beside == expected


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
async def test_a_dying_engine_fails_every_stream_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deaths: list[str] = []
    async with running_engine(tmp_path, slots=1, on_death=lambda: deaths.append("x")) as (
        engine,
        runner,
    ):
        runner.fail_decode = True
        runner.gate.clear()  # it must not die before all have come
        streams = [
            asyncio.create_task(run(engine, make_request([i], request_id=str(i)))) for i in range(3)
        ]
        await until(lambda: engine.load().running_count + engine.load().waiting_count == 3)
        runner.gate.set()
        results = await asyncio.gather(*streams, return_exceptions=True)
        assert [getattr(r, "reason", None) for r in results] == [Reason.INTERNAL] * 3
        assert deaths == ["x"]
        with pytest.raises(ServiceError) as caught:
            engine.submit(make_request())
        assert caught.value.reason is Reason.DECODER_UNAVAILABLE
        assert engine.load().running_count == 0


async def test_a_lookup_that_fails_ends_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_engine(tmp_path) as (engine, runner):
        runner.hold_at = 1
        with engine.submit(make_request([1, 2], max_tokens=3)) as first:
            await first.next_events()

            def fail(sequence: Sequence) -> Admission:
                raise RuntimeError("scripted failure")

            monkeypatch.setattr(engine._residency, "arrive", fail)
            with engine.submit(make_request([3])) as second:
                runner.gate.set()
                for stream in (first, second):
                    with pytest.raises(ServiceError) as caught:
                        while True:
                            await asyncio.wait_for(stream.next_events(), 10)
                    assert caught.value.reason is Reason.INTERNAL


async def test_stopping_fails_what_still_runs(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, _):
        stream = engine.submit(make_request([1] * 9, span_places=[(4, 3)]))
        await until(lambda: engine.load().running_count == 1)
    with pytest.raises(ServiceError) as caught:
        await stream.next_events()
    assert caught.value.reason is Reason.DRAINING
