"""The number of replicas for a load: bounds, monotony, and an end to every change."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_service.scaling.policy import (
    Aims,
    Decision,
    Memory,
    ReplicaLoad,
    TierLoad,
    decide,
    wait_s,
)

AIMS = Aims(fewest=1, most=16, wait_s=2.0, calm_s=60.0)
IDLE = ReplicaLoad(waiting_s=0.0, running_s=0.0, offered=0.0, patches_per_s=200.0, image_s=0.5)

seconds = st.floats(0.0, 100.0)
loads = st.builds(
    ReplicaLoad,
    waiting_s=seconds,
    running_s=seconds,
    offered=st.floats(0.0, 5.0),
    patches_per_s=st.floats(1.0, 1e4),
    image_s=st.floats(0.0, 20.0),
)
tiers = st.builds(
    TierLoad,
    replicas=st.lists(loads, min_size=1, max_size=8),
    asked=st.integers(1, 16),
    unassigned=st.floats(0.0, 100.0),
)


def tier(*replicas: ReplicaLoad, asked: int | None = None, unassigned: float = 0.0) -> TierLoad:
    count = len(replicas) if asked is None else asked
    return TierLoad(replicas=replicas, asked=count, unassigned=unassigned)


def at_once(load: TierLoad, aims: Aims = AIMS) -> int:
    return decide(load, aims, Memory(), 0.0).replicas


def settled(load: TierLoad, aims: Aims = AIMS) -> list[int]:
    """The numbers of five minutes in which work and rate stay the same whoever shares them."""
    numbers, memory = [load.asked], Memory()
    for now_s in range(0, 300, 15):
        decision = decide(replace(load, asked=numbers[-1]), aims, memory, float(now_s))
        memory = decision.memory
        numbers.append(decision.replicas)
    return numbers


def test_what_waits_is_shared_so_that_a_new_image_waits_no_longer_than_it_may() -> None:
    busy = replace(IDLE, waiting_s=9.0, running_s=1.0)
    assert wait_s(tier(busy)) == 10.0
    assert at_once(tier(busy)) == 5


def test_images_that_no_replica_has_taken_count_as_usual_ones() -> None:
    assert at_once(tier(IDLE, unassigned=20.0)) == 5


def test_work_of_a_slow_replica_is_less_for_others() -> None:
    slow = replace(IDLE, waiting_s=16.0, patches_per_s=100.0)
    fast = replace(IDLE, patches_per_s=300.0)
    assert wait_s(tier(slow, fast)) == pytest.approx(4.0)


def test_a_steady_stream_keeps_enough_replicas_though_none_waits() -> None:
    assert at_once(tier(replace(IDLE, offered=3.4), asked=1)) == 4


def test_one_long_image_does_not_start_more_replicas_than_it_can_use() -> None:
    assert at_once(tier(replace(IDLE, running_s=10.0, image_s=10.0))) == 1


def test_an_image_that_waits_brings_the_first_replica_back() -> None:
    zero = replace(AIMS, fewest=0)
    assert at_once(tier(unassigned=1.0), zero) == 1
    assert at_once(tier(unassigned=0.0), zero) == 0


def test_replicas_are_ended_after_a_calm_time_and_not_before() -> None:
    quiet = tier(IDLE, IDLE, IDLE)
    first = decide(quiet, AIMS, Memory(), 100.0)
    assert first.replicas == 3
    assert decide(quiet, AIMS, first.memory, 159.0).replicas == 3
    assert decide(quiet, AIMS, first.memory, 160.0) == Decision(1, Memory())


def test_a_load_in_between_begins_the_calm_time_anew() -> None:
    quiet = tier(IDLE, IDLE, IDLE)
    loaded = tier(IDLE, IDLE, replace(IDLE, waiting_s=6.0))
    memory = decide(quiet, AIMS, Memory(), 100.0).memory
    memory = decide(loaded, AIMS, memory, 150.0).memory
    memory = decide(quiet, AIMS, memory, 155.0).memory
    assert decide(quiet, AIMS, memory, 170.0).replicas == 3


def test_as_many_stay_as_the_calm_time_needed_at_most() -> None:
    many = tier(*[IDLE] * 8)
    some = tier(*[IDLE] * 7, replace(IDLE, waiting_s=3.0))
    memory = decide(many, AIMS, Memory(), 0.0).memory
    memory = decide(some, AIMS, memory, 30.0).memory
    assert decide(many, AIMS, memory, 60.0).replicas == 3


def test_the_last_replica_ends_where_none_must_stay() -> None:
    assert settled(tier(IDLE), replace(AIMS, fewest=0))[-1] == 0


@given(tiers, st.integers(0, 4), st.integers(4, 16))
def test_bounds_are_kept(load: TierLoad, fewest: int, most: int) -> None:
    numbers = settled(load, replace(AIMS, fewest=fewest, most=most))[1:]
    assert all(fewest <= number <= most for number in numbers)


@given(tiers, seconds, st.floats(0.0, 5.0), st.floats(0.0, 20.0))
def test_more_load_never_asks_for_fewer(
    load: TierLoad, waiting_s: float, offered: float, unassigned: float
) -> None:
    first = load.replicas[0]
    heavier = replace(first, waiting_s=first.waiting_s + waiting_s, offered=first.offered + offered)
    more = replace(
        load,
        replicas=(heavier, *load.replicas[1:]),
        unassigned=load.unassigned + unassigned,
    )
    assert at_once(more) >= at_once(load)


@given(tiers)
def test_a_constant_load_ends_at_one_number(load: TierLoad) -> None:
    numbers = settled(load)
    changes = [b - a for a, b in zip(numbers, numbers[1:], strict=False) if a != b]
    assert len(changes) <= 2
    assert numbers[-1] == settled(replace(load, asked=numbers[-1]))[-1]


@given(tiers)
def test_the_rest_carries_the_load_when_replicas_are_ended(load: TierLoad) -> None:
    numbers = settled(load, replace(AIMS, most=1000))
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after < before:
            assert at_once(replace(load, asked=after), replace(AIMS, most=1000)) == after
