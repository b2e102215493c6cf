"""The plans of the scheduler, step by step and by simulation."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.schedule.scheduler import Scheduler, StepPlan
from decoder_service.sequence.sequence import Sequence, Status
from tests.unit.decoder_service.fakes import make_request

SCHEDULER = Scheduler(prefill_chunk_tokens=8, aging_tokens=4)
SLOTS = itertools.count()
MIXED = 4


def running(prompt_length: int, *, decoding: bool = False, done: int = 0) -> Sequence:
    sequence = Sequence(make_request([1] * prompt_length), arrival=0.0)
    sequence.slot = next(SLOTS)
    sequence.status = Status.DECODING if decoding else Status.PREFILLING
    sequence.kv_length = prompt_length if decoding else done
    return sequence


def chunks(plan: StepPlan) -> list[tuple[Sequence, int, int]]:
    return [(chunk.sequence, chunk.start, chunk.stop) for chunk in plan.prefill]


def test_a_lone_prompt_is_prefilled_in_full_chunks() -> None:
    sequence = running(20, done=8)
    assert chunks(SCHEDULER.plan([sequence], 1, MIXED)) == [(sequence, 8, 16)]


def test_prompts_get_a_smaller_budget_beside_decoding_sequences() -> None:
    stream, prompt = running(5, decoding=True), running(20)
    plan = SCHEDULER.plan([stream, prompt], 1, MIXED)
    assert plan.decode == (stream,)
    assert chunks(plan) == [(prompt, 0, 4)]


def test_short_prompts_share_one_budget() -> None:
    first, second, third = running(3), running(4), running(9)
    assert chunks(SCHEDULER.plan([third, first, second], 1, MIXED)) == [
        (first, 0, 3),
        (second, 0, 4),
        (third, 0, 1),
    ]


def test_decoding_sequences_come_in_the_order_of_their_slots() -> None:
    first, second, third = (running(5, decoding=True) for _ in range(3))
    assert SCHEDULER.plan([second, third, first], 1, MIXED).decode == (first, second, third)


def test_a_prompt_passed_over_long_enough_comes_before_shorter_ones() -> None:
    long, short = running(30), running(8)
    short.served_step = 9
    assert chunks(SCHEDULER.plan([short, long], 4 + 6, MIXED)) == [(long, 0, 8)]


def test_text_before_a_missing_image_is_prefilled_and_nothing_behind_it() -> None:
    sequence = Sequence(make_request([1] * 12, span_places=[(3, 4), (9, 2)]), arrival=0.0)
    sequence.status = Status.PREFILLING
    assert chunks(SCHEDULER.plan([sequence], 1, MIXED)) == [(sequence, 0, 3)]
    sequence.kv_length = 3
    assert SCHEDULER.plan([sequence], 2, MIXED).is_empty
    sequence.set_features(1, np.zeros((3, 2, 8), np.float32), 0.0)
    assert SCHEDULER.plan([sequence], 3, MIXED).is_empty
    sequence.set_features(0, np.zeros((3, 4, 8), np.float32), 0.0)
    assert chunks(SCHEDULER.plan([sequence], 4, MIXED)) == [(sequence, 3, 11)]


def waiting(arrival: float, priority: int = 0, *, tenant: bytes = b"") -> Sequence:
    return Sequence(make_request(priority=priority, tenant=tenant), arrival=arrival)


def test_slots_go_to_the_highest_priority_then_to_the_first_come() -> None:
    low, early, late, high = waiting(0), waiting(1, 50), waiting(2, 50), waiting(3, 60)
    left, order = [low, late, early, high], []
    while (chosen := SCHEDULER.most_urgent(left, [], now=4.0)) is not None:
        left.remove(chosen)
        order.append(chosen)
    assert order == [high, early, late, low]
    assert SCHEDULER.least_urgent([low, early, late, high], 4.0) is low


def test_tenants_get_slots_in_turn_however_many_they_ask_for() -> None:
    many = [waiting(at, tenant=b"many") for at in range(12)]
    few = [waiting(12 + at, tenant=b"few") for at in range(3)]
    left, order = [*many, *few], list[Sequence]()
    while (chosen := SCHEDULER.most_urgent(left, order, now=20.0)) is not None:
        left.remove(chosen)
        order.append(chosen)
    # The head start of age is worth one or two slots, and then they take turns.
    assert set(few) <= set(order[:8])
    assert [s for s in order if s in many] == many  # each tenant's own in their order
    assert SCHEDULER.most_urgent([many[5], few[0]], many[:3], now=20.0) is few[0]


def test_priority_is_worth_slots_of_its_tenant() -> None:
    urgent, other = waiting(0, 30, tenant=b"a"), waiting(0, tenant=b"b")
    running = [waiting(0, tenant=b"a") for _ in range(4)]
    assert SCHEDULER.most_urgent([urgent, other], running[:2], now=0.0) is urgent
    assert SCHEDULER.most_urgent([urgent, other], running, now=0.0) is other


def test_a_full_queue_takes_from_the_tenant_that_has_most_of_it() -> None:
    many = [waiting(at, tenant=b"many") for at in range(5)]
    few = [waiting(9, tenant=b"few")]
    assert SCHEDULER.refused([*many, *few], [], 10.0) is many[-1]
    many[2] = waiting(2, -50, tenant=b"many")
    assert SCHEDULER.refused([*many, *few], [], 10.0) is many[2]
    # What runs counts, and keeps its slot.
    assert SCHEDULER.refused([many[0], *few], many[1:3], 10.0) is many[0]
    assert SCHEDULER.refused([many[0], *few], [], 10.0) is None  # equally many
    assert SCHEDULER.refused(few, many, 10.0) is None
    assert SCHEDULER.refused([], [], 10.0) is None


def test_the_lowest_priority_passes_the_highest_in_bounded_time() -> None:
    old, new = waiting(0, -100), waiting(201, 100)
    assert SCHEDULER.most_urgent([new, old], [], now=201.0) is old


def test_only_the_clearly_less_urgent_yield_and_never_by_turns() -> None:
    low, middle, high = waiting(0), waiting(0, 5), waiting(0, 12)
    assert SCHEDULER.yielding([middle, low], high, now=1.0) == [low]
    for now in (1.0, 50.0, 5000.0):
        assert SCHEDULER.yielding([high], low, now) == []
    late = waiting(30, 12)
    assert SCHEDULER.yielding([low], late, now=31.0) == []


@dataclass
class Arrival:
    step: int
    prompt: int
    output: int
    span: tuple[int, int] | None
    span_step: int


arrivals = st.builds(
    lambda step, prompt, output, at, length, wait: Arrival(
        step,
        prompt,
        output,
        (at % prompt, min(length, prompt - at % prompt)) if length else None,
        step + wait,
    ),
    step=st.integers(0, 30),
    prompt=st.integers(1, 40),
    output=st.integers(1, 12),
    at=st.integers(0, 39),
    length=st.integers(0, 6),
    wait=st.integers(0, 30),
)


@settings(deadline=None)
@given(
    planned=st.lists(arrivals, min_size=1, max_size=12),
    slots=st.integers(1, 4),
    chunk=st.integers(1, 16),
    mixed=st.integers(1, 8),
)
def test_everyone_admitted_ends_and_no_budget_is_passed(
    planned: list[Arrival], slots: int, chunk: int, mixed: int
) -> None:
    scheduler = Scheduler(prefill_chunk_tokens=chunk)
    by_sequence = {
        Sequence(
            make_request([1] * a.prompt, span_places=[a.span] if a.span else []),
            arrival=float(a.step),
        ): a
        for a in planned
    }
    queue: list[Sequence] = []
    active: list[Sequence] = []
    left = dict.fromkeys(by_sequence, 0)
    work = sum(a.prompt + a.output for a in planned)
    for step in range(1, 61 + work + 1):
        for sequence, a in by_sequence.items():
            if a.step == step - 1:
                queue.append(sequence)
                left[sequence] = a.output
            if a.span and a.span_step == step - 1:
                sequence.set_features(0, np.zeros((3, a.span[1], 8), np.float32), 0.0)
        while queue and len(active) < slots:
            sequence = scheduler.most_urgent(queue, [], float(step)) or queue[0]
            queue.remove(sequence)
            sequence.status, sequence.slot = Status.PREFILLING, next(SLOTS)
            sequence.served_step = step
            active.append(sequence)
        assert len(active) <= slots
        plan = scheduler.plan(active, step, mixed)
        decoding = {s for s in active if s.status is Status.DECODING}
        assert set(plan.decode) == decoding and len(plan.decode) == len(decoding)
        total = sum(c.stop - c.start for c in plan.prefill)
        assert total <= (mixed if decoding else chunk)
        if not decoding and any(s.prefillable_count for s in active):
            assert total > 0
        for c in plan.prefill:
            assert c.start == c.sequence.kv_length < c.stop <= c.sequence.prefillable_end
            c.sequence.kv_length, c.sequence.served_step = c.stop, step
            if c.is_last:
                c.sequence.status = Status.DECODING
        for sequence in plan.decode:
            left[sequence] -= 1
        for sequence in [s for s in active if s.status is Status.DECODING and left[s] <= 0]:
            active.remove(sequence)
            sequence.status = Status.FINISHED
    assert all(s.status is Status.FINISHED for s in by_sequence)


def test_a_long_prompt_is_served_within_a_bound_although_short_ones_keep_coming() -> None:
    scheduler = Scheduler(prefill_chunk_tokens=8, aging_tokens=16)
    long = running(400)
    last_served, gaps = 0, []
    for step in range(1, 3000):
        short = running(8)
        short.served_step = step - 1
        plan = scheduler.plan([short, long], step, 8)
        for chunk in plan.prefill:
            if chunk.sequence is long:
                gaps.append(step - last_served)
                last_served = step
                long.kv_length, long.served_step = chunk.stop, step
        if long.kv_length == 400:
            break
    assert long.kv_length == 400
    assert max(gaps) <= 400 // 16 + 1


@pytest.mark.parametrize("aging_tokens", [1, 64])
def test_looking_changes_nothing(aging_tokens: int) -> None:
    scheduler = Scheduler(prefill_chunk_tokens=8, aging_tokens=aging_tokens)
    sequences = [running(20), running(5, decoding=True)]
    assert scheduler.plan(sequences, 3, MIXED) == scheduler.plan(sequences, 3, MIXED)
