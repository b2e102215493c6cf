"""What a replica says of its own load."""

import pytest

from protos.media.images import Grid
from vision_service.scaling.cost import START, Work
from vision_service.scaling.meter import LoadMeter

WORK = Work.of(Grid(1, 32, 32))


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_images_count_from_when_they_come_until_they_are_done_or_given_up() -> None:
    meter = LoadMeter(Clock())
    with meter.holding(WORK):
        with pytest.raises(RuntimeError), meter.holding(WORK):
            assert meter.load().waiting_s == pytest.approx(2 * START.seconds(WORK))
            raise RuntimeError
        assert meter.load().waiting_s == pytest.approx(START.seconds(WORK))
    assert meter.load().waiting_s == 0.0


def test_a_pass_takes_its_images_out_of_the_queue_and_runs_down() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    with meter.holding(WORK):
        meter.began(WORK)
        clock.now_s += 1.0
        load = meter.load()
        assert load.waiting_s == 0.0
        assert load.running_s == pytest.approx(START.seconds(WORK) - 1.0)


def test_a_pass_that_is_late_looks_longer_the_longer_it_is_late() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    meter.began(WORK)
    clock.now_s += START.seconds(WORK) + 7.0
    assert meter.load().running_s == pytest.approx(7.0)


def test_only_a_pass_that_ran_alone_says_how_fast_the_replica_is() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    number = meter.began(WORK)
    clock.now_s += 2.0
    meter.ended(number, measures=False)
    assert meter.fit.cost == START
    number = meter.began(WORK)
    clock.now_s += 2.0
    meter.ended(number, measures=True)
    assert meter.fit.cost.seconds(WORK) == pytest.approx(2.0)


def test_the_rate_of_work_is_that_of_a_steady_stream_and_fades_behind_it() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    seconds = START.seconds(WORK)
    for _ in range(100):
        with meter.holding(WORK):
            clock.now_s += seconds / 0.5  # half of the replica's time
    assert meter.load().offered == pytest.approx(0.5, rel=0.25)
    clock.now_s += 120.0
    assert meter.load().offered < 0.02
