"""Cores and the processes on them against the formulas of queues that have one."""

from collections.abc import Callable

import numpy as np
import pytest

from planner.simulation.clock import Clock
from planner.simulation.core import Core, Service

JOBS = 6_000
BUSY = 0.6
Run = Callable[[float, Callable[[], None]], object]


def stays(clock: Clock, run: Run, seconds: list[float], busy: float = BUSY) -> list[float]:
    """How long each job was there, by its number; jobs come at random moments."""
    gaps = np.random.default_rng(3).exponential(float(np.mean(seconds)) / busy, len(seconds))
    found = [0.0] * len(seconds)

    def come(number: int) -> None:
        came = clock.now

        def left() -> None:
            found[number] = clock.now - came

        run(seconds[number], left)

    for number, moment in enumerate(np.cumsum(gaps)):
        clock.at(float(moment), lambda number=number: come(number))  # type: ignore[misc]
    clock.run()
    return found


def exponential(mean: float) -> list[float]:
    return [float(one) for one in np.random.default_rng(5).exponential(mean, JOBS)]


def ends(core: Core, clock: Clock, seconds: list[float]) -> list[float]:
    """When jobs that begin together end, in order."""
    found = list[float]()
    for one in seconds:
        core.run(one, lambda: found.append(clock.now))
    clock.run()
    return found


def test_jobs_share_a_core_evenly_and_none_of_it_is_lost() -> None:
    clock = Clock()
    assert ends(Core(clock), clock, [1.0, 2.0, 3.0]) == pytest.approx([3.0, 5.0, 6.0])


def test_what_others_take_of_a_core_makes_its_jobs_slower() -> None:
    clock = Clock()
    assert ends(Core(clock, speed=0.8), clock, [2.0]) == pytest.approx([2.5])


@pytest.mark.parametrize("sizes", [[1.0] * JOBS, exponential(1.0)], ids=["M/D/1", "M/M/1"])
def test_a_shared_core_is_a_queue_of_processor_sharing(sizes: list[float]) -> None:
    # Its mean stay is that of M/M/1 whatever the sizes' distribution.
    clock = Clock()
    found = stays(clock, Core(clock).run, sizes)
    assert np.mean(found) == pytest.approx(1 / (1 - BUSY), rel=0.08)


def test_on_a_shared_core_a_job_stays_as_its_size_wants() -> None:
    clock, sizes = Clock(), exponential(1.0)
    found = np.array(stays(clock, Core(clock).run, sizes))
    for low, high in ((0.0, 0.5), (0.5, 1.5), (1.5, 9.0)):
        some = np.array([low <= size < high for size in sizes])
        slowed = found[some].sum() / np.array(sizes)[some].sum()
        assert slowed == pytest.approx(1 / (1 - BUSY), rel=0.1)


def test_a_process_alone_is_a_queue_in_order() -> None:
    clock = Clock()
    found = stays(clock, Service(Core(clock)).run, exponential(1.0))
    assert np.mean(found) == pytest.approx(1 / (1 - BUSY), rel=0.08)  # M/M/1
    clock = Clock()
    found = stays(clock, Service(Core(clock)).run, [1.0] * JOBS)
    assert np.mean(found) == pytest.approx(1 + BUSY / (2 * (1 - BUSY)), rel=0.08)  # M/D/1


def test_a_process_with_much_to_do_has_no_more_of_a_core_than_one_with_little() -> None:
    clock, found = Clock(), dict[str, float]()
    core = Core(clock)
    much = Service(core)
    for _ in range(10):
        much.run(1.0, lambda: found.update(much=clock.now))
    Service(core).run(2.0, lambda: found.update(little=clock.now))
    clock.run()
    assert found == pytest.approx({"little": 4.0, "much": 12.0})
