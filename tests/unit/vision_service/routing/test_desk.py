"""Calls and replicas as the front sees them, with a clock of ours."""

from protos.media.images import Grid
from vision_service.routing.desk import Desk, Ticket, Verdict
from vision_service.scaling.cost import Cost, Work
from vision_service.scaling.placement import Report

COST = Cost(patch_s=0.001, pair_s=0.0)
WORK = Work.of(Grid(1, 40, 50))  # 2 s


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Tier:
    """A desk whose replicas report when told to."""

    def __init__(self, *replicas: str) -> None:
        self.clock = Clock()
        self.desk = Desk(self.clock)
        self._beat = 0
        if replicas:
            self.desk.replicas(replicas)
            self.report(*replicas)

    def report(self, *replicas: str) -> None:
        self._beat += 1
        for replica in replicas:
            self.desk.heard(replica, Report(beat=self._beat, ahead_s=0.0, cost=COST))

    def passes(self, seconds: float, *reporting: str) -> None:
        """Time goes by in half seconds, in which some replicas go on reporting."""
        for _ in range(int(seconds * 2)):
            self.clock.now_s += 0.5
            self.report(*reporting)

    def verdict(self, ticket: Ticket, tier_wait_s: float = 0.5) -> Verdict | None:
        return self.desk.verdict(ticket, tier_wait_s=tier_wait_s)


def test_images_are_shared_out_before_any_report_shows_them() -> None:
    tier = Tier("a", "b")
    places = []
    for _ in range(4):
        ticket = tier.desk.open(WORK)
        tier.desk.choose(ticket.number, ahead_s=1e9)
        places.append(str(ticket.replica))
    assert sorted(places) == ["a", "a", "b", "b"]


def test_a_call_that_ended_leaves_no_work_behind() -> None:
    tier = Tier("a")
    ticket = tier.desk.open(WORK)
    assert tier.desk.choose(ticket.number, ahead_s=1.0) == ["a"]
    second = tier.desk.open(WORK)
    assert tier.desk.choose(second.number, ahead_s=1.0) == []
    tier.desk.close(ticket)
    assert tier.desk.choose(second.number, ahead_s=1.0) == ["a"]


def test_a_call_nobody_knows_is_left_to_serve() -> None:
    assert Tier("a").desk.choose(7, ahead_s=1.0) is None


def test_a_call_waits_for_an_absent_tier_as_long_as_it_may() -> None:
    tier = Tier()
    ticket = tier.desk.open(WORK)
    tier.passes(10.0)
    assert tier.verdict(ticket) is None  # Serve has not said anything yet
    tier.desk.replicas([])
    assert tier.verdict(ticket) is None
    tier.passes(0.5)
    assert tier.verdict(ticket) is Verdict.ABSENT
    assert tier.verdict(ticket, tier_wait_s=60.0) is None
    tier.desk.replicas(["a"])
    assert tier.verdict(ticket) is None


def test_a_stopped_replica_is_given_up_after_a_time_of_its_images_length() -> None:
    for work, seconds in ((Work.of(Grid(1, 10, 10)), 2.5), (WORK, 8.5)):
        tier = Tier("a", "b")
        ticket = tier.desk.open(work)
        tier.desk.sent(ticket.number, "a")
        tier.passes(seconds - 1.0, "b")
        assert tier.verdict(ticket) is None
        tier.passes(1.0, "b")
        assert tier.verdict(ticket) is Verdict.HUNG
        again = tier.desk.open(work, avoid=["a"])
        assert tier.desk.choose(again.number, ahead_s=1.0) == ["b"]


def test_a_replica_that_reports_has_eight_times_as_long() -> None:
    tier = Tier("a", "b")
    ticket = tier.desk.open(WORK)
    tier.desk.sent(ticket.number, "a")
    tier.passes(26.0, "a", "b")
    assert tier.verdict(ticket) is None
    tier.passes(1.0, "a", "b")
    assert tier.verdict(ticket) is Verdict.HUNG


def test_a_single_replica_is_never_given_up() -> None:
    tier = Tier("a")
    ticket = tier.desk.open(WORK)
    tier.desk.sent(ticket.number, "a")
    tier.passes(600.0)
    assert tier.verdict(ticket) is None


def test_replicas_that_all_fall_silent_are_not_taken_for_stopped() -> None:
    tier = Tier("a", "b")
    ticket = tier.desk.open(WORK)
    tier.desk.sent(ticket.number, "a")
    tier.passes(20.0)
    assert tier.verdict(ticket) is None
    assert tier.desk.choose(ticket.number, ahead_s=1.0) is None
