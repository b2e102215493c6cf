"""Which replica an image goes to: the one that should be done with it first.

A front hears of each replica's queue about once a second. Between two reports it adds what it has
sent itself since, which it knows by number: a report names the last image that the replica has of
each front. No clock but the front's own is read, and a report's age is taken from when it came.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vision_service.scaling.cost import START, Cost, Work

K = TypeVar("K")

# Work that a replica may have before it when it is given more, seconds. The rest waits in front,
# where it can still go to any replica, also to one that is being started.
AHEAD_S = 1.0
_FOR_EVER_S = 1e9  # of a single replica: it orders what waits by itself, and better

# An image is overdue so much later than predicted; and a replica that is silent since is suspect.
_OVERDUE_FACTOR, _OVERDUE_S = 3.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a replica says of itself.

    Attributes:
        beat: A number that every report has anew.
        ahead_s: Predicted seconds until it is done with all it holds.
        cost: What it takes for patches and pairs.
        seen: Of each front that sent it images lately, the number of the last one.
    """

    beat: int
    ahead_s: float
    cost: Cost
    seen: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What to expect of a replica now.

    Attributes:
        ahead_s: Predicted seconds until it is done with all it holds.
        cost: What it takes for patches and pairs.
        fresh: Whether it has reported lately.
    """

    ahead_s: float
    cost: Cost
    fresh: bool

    def finish_s(self, work: Work) -> float:
        """Predicted seconds until a new image is done there."""
        return self.ahead_s + self.cost.seconds(work)


def most_ahead_s(replicas: int) -> float:
    """What a replica may have before it when it is given more, seconds.

    Args:
        replicas: The most that there may be.
    """
    return AHEAD_S if replicas > 1 else _FOR_EVER_S


def in_order(
    outlooks: Mapping[K, Outlook], work: Work, *, avoid: Collection[K] = (), ahead_s: float
) -> list[K] | None:
    """The replicas an image may go to now, the one that is done with it first at the front.

    Args:
        outlooks: Of all replicas.
        work: The image's.
        avoid: Replicas to leave out as long as there are others.
        ahead_s: Those that have more than so many seconds to do get nothing yet: what waits in
            front of all replicas can still go to any of them.

    Returns:
        Replicas; none where all have enough to do; None where too little is known to choose.
    """
    known = {key: one for key, one in outlooks.items() if one.fresh}
    if not known:
        return None
    allowed = [key for key in known if key not in avoid] or list(known)
    free = [key for key in allowed if known[key].ahead_s <= ahead_s]
    return sorted(free, key=lambda key: known[key].finish_s(work))


@dataclass(slots=True)
class _Known:
    report: Report | None
    since_s: float


@dataclass(frozen=True, slots=True)
class _Sent(Generic[K]):
    replica: K
    work: Work
    due_s: float


class Board(Generic[K]):
    """What one front knows of the replicas; a plain object without locks or clock.

    Args:
        front: Its name among all fronts.
        stale_s: How old a report may be before its replica is taken for hung or gone.
        suspect_s: The same where an image is overdue there.
    """

    def __init__(self, front: str, *, stale_s: float, suspect_s: float) -> None:
        self._front = front
        self._stale_s = stale_s
        self._suspect_s = suspect_s
        self._known: dict[K, _Known] = {}
        self._sent: dict[int, _Sent[K]] = {}

    def keep(self, replicas: Collection[K], now_s: float) -> None:
        """Replaces the set of replicas that there are; new ones count as fresh for a while."""
        self._known = {
            replica: self._known.get(replica) or _Known(None, now_s) for replica in replicas
        }

    def heard(self, replica: K, report: Report | None, now_s: float) -> None:
        """A replica's latest report, new or seen before."""
        known = self._known.setdefault(replica, _Known(None, now_s))
        if report is not None and (known.report is None or known.report.beat != report.beat):
            self._known[replica] = _Known(report, now_s)

    def sent(self, number: int, replica: K, work: Work, now_s: float) -> float:
        """An image goes to a replica; numbers grow. One that is sent again moves.

        Returns:
            In how many seconds it should be done there.
        """
        self.done(number)
        outlook = self.outlooks(now_s).get(replica)
        finish_s = outlook.finish_s(work) if outlook is not None else 0.0
        due_s = now_s + _OVERDUE_S + _OVERDUE_FACTOR * finish_s
        self._sent[number] = _Sent(replica, work, due_s)
        return finish_s

    def done(self, number: int) -> None:
        """An image is done, or nobody waits for it any more."""
        self._sent.pop(number, None)

    def is_stale(self, replica: K, now_s: float) -> bool:
        """Whether a replica has not reported for too long, or is none any more."""
        known = self._known.get(replica)
        if known is None or now_s - known.since_s > self._stale_s:
            return True
        return now_s - known.since_s > self._suspect_s and any(
            one.replica == replica and one.due_s < now_s for one in self._sent.values()
        )

    def outlooks(self, now_s: float) -> dict[K, Outlook]:
        """What to expect of every replica."""
        unseen: dict[K, list[Work]] = {}
        for number, sent in self._sent.items():
            if not self._is_seen(number, sent.replica):
                unseen.setdefault(sent.replica, []).append(sent.work)
        cost = self._usual_cost()
        return {
            replica: self._outlook(replica, unseen.get(replica, ()), cost, now_s)
            for replica in self._known
        }

    def _is_seen(self, number: int, replica: K) -> bool:
        known = self._known.get(replica)
        seen = known.report.seen if known is not None and known.report is not None else {}
        return number <= seen.get(self._front, -1)

    def _outlook(self, replica: K, unseen: Iterable[Work], usual: Cost, now_s: float) -> Outlook:
        known = self._known[replica]
        report = known.report
        cost = usual if report is None else report.cost
        told_s = 0.0 if report is None else report.ahead_s
        added_s = cost.seconds(Work.sum(unseen))
        return Outlook(
            ahead_s=max(0.0, told_s + added_s - (now_s - known.since_s)),
            cost=cost,
            fresh=not self.is_stale(replica, now_s),
        )

    def _usual_cost(self) -> Cost:
        """What a replica that has not reported yet should take: as long as the others."""
        costs = [one.report.cost for one in self._known.values() if one.report is not None]
        if not costs:
            return START
        return Cost(
            patch_s=sum(cost.patch_s for cost in costs) / len(costs),
            pair_s=sum(cost.pair_s for cost in costs) / len(costs),
        )
