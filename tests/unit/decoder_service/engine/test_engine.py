"""The engine's thread over a fake runner: interleaving, cancelling, ending, reporting."""

import asyncio
import random
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoder_service.engine.engine import Engine
from decoder_service.engine.stream import SequenceStream
from decoder_service.sequence.request import FinishReason, ReportOptions, Request, Token
from protos.wire.errors import Overloaded
from tests.unit.decoder_service.engines import collect, is_idle, run, running_engine, until
from tests.unit.decoder_service.fakes import VOCAB, make_request, random_features


def random_request(rng: random.Random, index: int) -> Request:
    length = rng.randint(1, 30)
    spans, at = [], 0
    while rng.random() < 0.5 and at < length:
        at += rng.randint(0, 4)
        count = min(rng.randint(1, 6), length - at)
        if count > 0:
            spans.append((at, count))
            at += count
    sampling = rng.choice(
        (
            {},
            {"temperature": 1.0, "seed": index},
            {"temperature": 0.8, "seed": index, "top_k": 5, "repetition_penalty": 1.3},
        )
    )
    return make_request(
        [rng.randrange(VOCAB - 1) for _ in range(length)],
        request_id=f"r{index}",
        max_tokens=rng.randint(1, 20),
        span_places=spans,
        sampling=sampling,
        priority=rng.randint(-5, 5),
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 5),
    chunk=st.integers(1, 16),
    mixed=st.integers(1, 8),
    spare=st.integers(0, 200),
    draft_tokens=st.sampled_from((0, 5)),
)
async def test_any_interleaving_gives_every_sequence_its_solo_tokens(
    tmp_path: Path, seed: int, slots: int, chunk: int, mixed: int, spare: int, draft_tokens: int
) -> None:
    rng = random.Random(seed)
    requests = [random_request(rng, index) for index in range(8)]
    async with running_engine(tmp_path, slots=1, chunk=64) as (engine, _):
        solo = [await run(engine, r, 10 * i) for i, r in enumerate(requests)]
    delays = [rng.random() * 0.01 for _ in requests]
    victims = {i for i in range(len(requests)) if rng.random() < 0.3}

    async def one(index: int) -> list[int] | None:
        await asyncio.sleep(delays[index])
        request = requests[index]
        with engine.submit(request) as stream:
            for place, span in enumerate(request.spans):
                await asyncio.sleep(delays[place])
                values = random_features(10 * index + place, span.length)
                stream.set_features(place, values)
            if index in victims:
                await asyncio.sleep(delays[index])
                return None
            tokens, _ = await collect(stream)
        return [token.token_id for token in tokens]

    async with running_engine(
        tmp_path,
        slots=slots,
        chunk=chunk,
        mixed=mixed,
        budget=64 + spare,
        draft_tokens=draft_tokens,
    ) as (engine, _):
        together = await asyncio.gather(*(one(index) for index in range(len(requests))))
        await until(is_idle(engine))
        assert engine.load().kv_token_count == 0
    for index, tokens in enumerate(together):
        assert tokens is None or tokens == solo[index]


async def test_chunk_sizes_and_images_change_nothing(tmp_path: Path) -> None:
    request = make_request(range(30), span_places=[(4, 7), (15, 6)], max_tokens=12)
    results = []
    for chunk in (1, 2, 5, 64):
        async with running_engine(tmp_path, chunk=chunk) as (engine, runner):
            results.append(await run(engine, request))
            assert max(runner.chunk_sizes) <= chunk
    assert all(result == results[0] for result in results)
    async with running_engine(tmp_path) as (engine, _):
        assert await run(engine, request, feature_seed=99) != results[0]


async def test_running_sequences_share_decode_steps(tmp_path: Path) -> None:
    async with running_engine(tmp_path, chunk=64) as (engine, runner):
        runner.gate.clear()
        requests = [make_request([i], request_id=str(i), max_tokens=30) for i in range(4)]
        tasks = [asyncio.create_task(run(engine, request)) for request in requests]
        await until(lambda: len(engine._streams) == 4)
        runner.gate.set()
        await asyncio.gather(*tasks)
        assert max(runner.batch_sizes) == 4


async def test_a_sequence_whose_image_is_missing_lets_others_pass(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=2) as (engine, runner):
        blocked = engine.submit(make_request([1] * 9, span_places=[(4, 3)]))
        await until(lambda: engine.load().kv_token_count == 4)
        assert runner.chunk_sizes == [4]
        assert len(await run(engine, make_request([5, 6], request_id="b", max_tokens=5))) == 5
        blocked.set_features(0, random_features(1, 3))
        tokens, completion = await collect(blocked)
        assert len(tokens) == 4
        assert completion.timings.features_ms > 0


async def test_a_cancelled_sequence_frees_its_slot_before_the_next_step(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=1) as (engine, _):
        with engine.submit(make_request([1] * 9, span_places=[(4, 3)])):
            await until(lambda: engine.load().running_count == 1)
        assert await run(engine, make_request([2], request_id="b"))
        await until(is_idle(engine))


async def test_a_sequence_cancelled_while_a_step_runs_is_not_in_the_next_one(
    tmp_path: Path,
) -> None:
    async with running_engine(tmp_path, slots=2) as (engine, runner):
        runner.hold_at = 2
        beside = asyncio.create_task(run(engine, make_request([1], max_tokens=60)))
        with engine.submit(make_request([2], request_id="b", max_tokens=60)):
            await until(lambda: runner.hold_at is None)
            alone_first = len(runner.batch_sizes)
        runner.gate.set()
        await beside
        assert runner.batch_sizes[alone_first] == 2
        assert set(runner.batch_sizes[alone_first + 1 :]) == {1}


async def test_a_waiting_sequence_can_be_cancelled(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=1) as (engine, _):
        with engine.submit(make_request([1] * 9, span_places=[(4, 3)])):
            with engine.submit(make_request(request_id="b")):
                await until(lambda: engine.load().waiting_count == 1)
            await until(lambda: engine.load().waiting_count == 0)
            assert engine.load().running_count == 1


async def test_a_full_queue_is_refused_with_a_delay(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=1, waiting=1) as (engine, _):
        with engine.submit(make_request([1] * 9, span_places=[(4, 3)])):
            with engine.submit(make_request(request_id="b")):
                await until(lambda: engine.load().waiting_count == 1)
                with pytest.raises(Overloaded) as caught:
                    engine.submit(make_request(request_id="c"))
        assert caught.value.retry_after_s is not None and caught.value.retry_after_s >= 1
        await until(is_idle(engine))
        assert await run(engine, make_request(request_id="d"))


async def test_a_full_queue_still_has_a_place_for_another_tenant(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=1, waiting=3) as (engine, _):
        held = ExitStack()

        def submit(name: str, tenant: bytes) -> SequenceStream:
            request = make_request([1] * 9, span_places=[(4, 3)], request_id=name, tenant=tenant)
            return held.enter_context(engine.submit(request))

        hog = [submit(f"a{at}", b"a") for at in range(4)]
        await until(lambda: engine.load().waiting_count == 3)
        with pytest.raises(Overloaded):
            submit("a4", b"a")
        submit("b0", b"b")
        with pytest.raises(Overloaded) as caught:
            while True:
                await hog[-1].next_events()  # the newest of those that wait
        assert caught.value.retry_after_s is not None
        await until(lambda: engine.load().waiting_count == 3)
        submit("c0", b"c")  # and one more, until nobody has two more than another
        await until(lambda: engine.load().waiting_count == 3)
        for name, tenant in (("b1", b"b"), ("a5", b"a")):
            with pytest.raises(Overloaded):
                submit(name, tenant)
        held.close()
        await until(is_idle(engine))


async def test_a_hundred_of_one_tenant_do_not_keep_another_waiting(tmp_path: Path) -> None:
    ended: list[str] = []

    async def answer(engine: Engine, name: str, tenant: bytes) -> None:
        request = make_request([1] * 5, request_id=name, tenant=tenant, max_tokens=8)
        await collect(engine.submit(request))
        ended.append(name)

    async with running_engine(tmp_path, slots=4, waiting=120) as (engine, _):
        hog = [asyncio.create_task(answer(engine, f"a{at}", b"a")) for at in range(100)]
        await until(lambda: engine.load().running_count == 4)
        await answer(engine, "b", b"b")
        await asyncio.gather(*hog)
    # It had to wait for one of four slots, in which answers end at the same time.
    assert ended.index("b") < 20


async def test_stop_tokens_end_the_answer_and_are_not_part_of_it(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, _):
        tokens = await run(engine, make_request(max_tokens=10))
        place = next(i for i, t in enumerate(tokens) if t not in tokens[:i] and i > 1)
        request = make_request(max_tokens=10, stop_token_ids=[tokens[place]])
        shortened, completion = await collect(engine.submit(request))
        assert [token.token_id for token in shortened] == tokens[:place]
        assert completion.finish_reason is FinishReason.STOP
        assert completion.stop_token_id == tokens[place]
        assert completion.completion_tokens == place + 1


async def test_max_tokens_end_the_answer_with_length_and_timings(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, _):
        tokens, completion = await collect(engine.submit(make_request([1] * 5, max_tokens=3)))
        assert len(tokens) == completion.completion_tokens == 3
        assert completion.finish_reason is FinishReason.LENGTH
        assert completion.stop_token_id is None
        assert completion.prompt_tokens == 5
        assert completion.timings.queue_ms >= 0 and completion.timings.features_ms == 0
        assert 0 < completion.timings.prefill_ms <= completion.timings.first_token_ms
        assert completion.timings.decode_ms > 0


async def test_a_sequence_may_fill_its_slot_to_the_last_token(tmp_path: Path) -> None:
    async with running_engine(tmp_path, slots=2) as (engine, _):
        request = make_request([1] * 60, max_tokens=4)
        assert len(await run(engine, request)) == 4


async def test_reports_hold_logprobs_and_logits_of_each_token(tmp_path: Path) -> None:
    report = ReportOptions(logprobs=True, top_logprob_count=2, logits=True)
    async with running_engine(tmp_path) as (engine, _):
        plain = run(engine, make_request(request_id="plain"))
        asked = collect(engine.submit(make_request(report=report)))
        (tokens, _), ids = await asyncio.gather(asked, plain)
        assert [token.token_id for token in tokens] == ids
        for token in tokens:
            assert token.logits is not None and token.logprobs is not None
            assert token.logits.argmax() == token.token_id == token.logprobs.top[0][0]
            assert token.logprobs.logprob == pytest.approx(token.logprobs.top[0][1])


async def test_a_token_does_not_wait_for_the_end_of_the_next_run(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, runner):
        runner.hold_at = 1
        with engine.submit(make_request([1, 2], max_tokens=3)) as stream:
            events = await asyncio.wait_for(stream.next_events(), 10)
            assert [type(event) for event in events] == [Token]
            assert runner.batch_sizes == []
            runner.gate.set()


async def test_what_a_sequence_needs_is_said_while_the_model_computes(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, runner):
        runner.hold_at = 1
        with engine.submit(make_request([1, 2], max_tokens=3, request_id="first")) as first:
            await first.next_events()  # so the next run is held
            places = [(1, 2), (5, 3)]
            with engine.submit(make_request([1] * 9, span_places=places)) as second:
                admission = await asyncio.wait_for(second.admission(), 10)
                assert admission.needed_spans == (0, 1)
                assert not second.slot_granted.is_set()
                assert runner.batch_sizes == []
                runner.gate.set()
                await asyncio.wait_for(second.slot_granted.wait(), 10)
            assert len((await collect(first))[0]) == 2
