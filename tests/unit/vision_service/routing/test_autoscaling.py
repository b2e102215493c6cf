"""The policy as Serve calls it: what it reads of Serve's context."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protos.media.images import Grid
from vision_service.routing.autoscaling import WorkPolicy
from vision_service.routing.wire import Reporter, number_of, report_from_plain
from vision_service.scaling.cost import START, Work
from vision_service.scaling.meter import LoadMeter


class Stamped(NamedTuple):
    """As Serve's TimeStampedValue."""

    timestamp: float
    value: float


@dataclass
class Context:
    """What is read of Serve's AutoscalingContext."""

    target_num_replicas: int
    running_replicas: list[str] = field(default_factory=list)
    raw_metrics: dict[str, dict[str, list[Stamped]]] = field(default_factory=dict)
    total_queued_requests: float = 0.0

    def tells(self, replica: str, stamp: float, **figures: float) -> None:
        names = {
            "waiting_s": 0.0,
            "running_s": 0.0,
            "offered": 0.0,
            "patches_per_s": 200.0,
            "image_s": 1.0,
        }
        for name, value in (names | figures).items():
            earlier = Stamped(stamp - 1.0, 99.0)
            self.raw_metrics.setdefault(name, {})[replica] = [earlier, Stamped(stamp, value)]


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def policy(clock: Clock, **aims: Any) -> WorkPolicy:
    return WorkPolicy(clock, **{"fewest": 1, "most": 16, **aims})


def test_the_latest_figures_of_each_replica_count_and_images_no_replica_has() -> None:
    context = Context(2, ["a", "b"], total_queued_requests=6.0)
    context.tells("a", 1.0, waiting_s=8.0)
    context.tells("b", 1.0, running_s=2.0)
    assert policy(Clock())(context) == (8, {})


def test_a_replica_without_figures_yet_is_there_but_has_nothing_to_do() -> None:
    context = Context(2, ["a", "new"])
    context.tells("a", 1.0, waiting_s=8.0)
    assert policy(Clock())(context)[0] == 4


def test_a_replica_whose_figures_stand_still_carries_nothing() -> None:
    clock, context = Clock(), Context(2, ["a", "b"])
    judge = policy(clock)
    for now_s in range(8):
        clock.now_s = float(now_s)
        context.tells("a", 5000.0, waiting_s=40.0)  # of another clock, and never anew
        context.tells("b", 1.0 + now_s)
        numbers = judge(context)[0]
        assert numbers == (16 if now_s <= 5 else 2)


def test_replicas_that_are_started_at_first_or_again_are_asked_for_as_they_were() -> None:
    assert policy(Clock())(Context(3))[0] == 3
    assert policy(Clock(), fewest=0)(Context(0))[0] == 0


def test_what_a_replica_reports_is_what_policy_and_routers_read() -> None:
    clock = Clock()
    meter = LoadMeter(clock)
    reporter = Reporter(meter)
    work = Work.of(Grid(1, 32, 32))
    reporter.took({"ticket": ("me", 7)})
    with meter.holding(work):
        first, second = (report_from_plain(reporter.for_routers()) for _ in range(2))
        context = Context(1, ["a"])
        context.tells("a", 1.0, **reporter.for_policy())
    assert first is not None and second is not None
    assert first.beat != second.beat
    assert (first.ahead_s, first.cost, first.seen) == (START.seconds(work), START, {"me": 7})
    assert policy(Clock())(context)[0] == 1
    assert policy(Clock(), wait_s=1.0)(context)[0] == 1  # an image is not shared


def test_calls_that_encode_have_numbers_and_others_have_none() -> None:
    assert number_of([{"ticket": ("me", 7)}]) == 7
    assert number_of([{}]) is None
    assert number_of([]) is None
    assert report_from_plain({}) is None
