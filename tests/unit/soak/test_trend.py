"""The verdict of a soak: what rises is seen, what comes and goes is not."""

import random
from collections.abc import Callable

import pytest

from tests.soak.census import Holding
from tests.soak.samples import Sample
from tests.soak.trend import MIB, Trend, theil_sen, trends

HOUR_S, RESTS = 3600.0, 40
Level = Callable[[float], Holding]  # of a share of the time


def run(level: Level, *, role: str = "gateway", seconds: float = HOUR_S) -> dict[str, Trend]:
    """The trends of a run whose rests hold what a function says; under load there is more."""
    samples = []
    for rest in range(RESTS):
        at_s = seconds * (rest + 1) / RESTS
        held = level(at_s / seconds)
        for number in (None, rest, rest, rest):
            busy = Holding(anonymous=50 * MIB, descriptors=9) if number is None else Holding()
            samples.append(Sample(at_s=at_s, rest=number, held={role: held + busy}, shm=0, work={}))
    return {each.quantity: each for each in trends(samples, warm_up=0.25)}


def grown(mib: float) -> Level:
    """Memory that grows by so much over the run, beside noise of half a MiB."""
    rng = random.Random(0)
    return lambda share: Holding(
        anonymous=int((80 + mib * share + rng.uniform(0, 0.5)) * MIB), descriptors=17, threads=5
    )


@pytest.mark.parametrize(("mib", "is_flat"), [(0, True), (-20, True), (4, True), (12, False)])
def test_memory_that_grows_beyond_the_bound_is_seen(mib: float, is_flat: bool) -> None:
    found = run(grown(mib))["anonymous"]
    assert found.is_flat is is_flat
    assert found.slope == pytest.approx(mib, abs=1.0)


def test_a_kilobyte_a_request_is_seen_in_an_hour() -> None:
    assert run(grown(12_000 * 1024 / MIB))["anonymous"].is_flat is False


def test_what_grows_while_caches_fill_does_not_count() -> None:
    found = run(lambda share: Holding(anonymous=int(min(share, 0.2) * 400 * MIB)))
    assert found["anonymous"].is_flat is True


def test_one_rest_that_stands_out_moves_nothing() -> None:
    found = run(lambda share: Holding(anonymous=(300 if 0.6 < share < 0.63 else 80) * MIB))
    assert found["anonymous"].slope == 0
    assert found["anonymous"].is_flat is True


@pytest.mark.parametrize("quantity", ["descriptors", "threads", "processes", "children"])
def test_one_more_of_what_must_be_equal_is_seen(quantity: str) -> None:
    found = run(lambda share: Holding(**{quantity: 17 + (share > 0.7)}))
    assert {name for name, each in found.items() if each.is_flat is False} == {quantity}


def test_of_a_short_run_noise_is_no_slope() -> None:
    assert run(grown(2), seconds=90)["anonymous"].is_flat is True
    assert run(grown(16), seconds=90)["anonymous"].is_flat is False


def test_rays_own_processes_are_told_without_a_verdict() -> None:
    assert {each.is_flat for each in run(grown(50), role="Ray: raylet").values()} == {None}


def test_the_slope_is_the_median_of_all_pairs() -> None:
    assert theil_sen([(0, 0), (1, 2), (2, 4), (3, 6), (4, 100)]) == 2
    assert theil_sen([(0, 5)]) == 0
