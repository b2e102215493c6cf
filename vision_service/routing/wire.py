"""What replicas tell Serve of themselves, and how calls are numbered, as plain data."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from vision_service.scaling.cost import Cost
from vision_service.scaling.meter import LoadMeter
from vision_service.scaling.placement import Report
from vision_service.scaling.policy import ReplicaLoad

TICKET = "ticket"  # key of a job's plain form: the front's name, and the number of its call
_MAX_FRONTS = 64  # whose last numbers a replica remembers


class Reporter:
    """What one replica reports, to the policy and to the routers.

    Args:
        meter: Its load.
    """

    def __init__(self, meter: LoadMeter) -> None:
        self._meter = meter
        self._beat = 0
        self._seen: OrderedDict[str, int] = OrderedDict()

    def took(self, plain: Mapping[str, Any]) -> None:
        """Notes that a front's call is here."""
        if TICKET not in plain:
            return
        front, number = plain[TICKET]
        self._seen[front] = max(number, self._seen.pop(front, 0))
        if len(self._seen) > _MAX_FRONTS:
            self._seen.popitem(last=False)

    def for_policy(self) -> dict[str, float]:
        """The figures of a `ReplicaLoad` by name; Serve takes numbers alone."""
        load = self._meter.load()
        return {name: float(getattr(load, name)) for name in ReplicaLoad.__slots__}

    def for_routers(self) -> dict[str, Any]:
        """A `Report` as plain data, anew each time."""
        self._beat += 1
        load, cost = self._meter.load(), self._meter.fit.cost
        return {
            "beat": self._beat,
            "ahead_s": load.waiting_s + load.running_s,
            "patch_s": cost.patch_s,
            "pair_s": cost.pair_s,
            "seen": dict(self._seen),
        }


def report_from_plain(plain: Mapping[str, Any]) -> Report | None:
    """Undoes `Reporter.for_routers`; None before a replica's first report."""
    if "beat" not in plain:
        return None
    return Report(
        beat=plain["beat"],
        ahead_s=plain["ahead_s"],
        cost=Cost(patch_s=plain["patch_s"], pair_s=plain["pair_s"]),
        seen=plain["seen"],
    )


def number_of(arguments: Sequence[Any]) -> int | None:
    """The number of a call that encodes; None of any other call."""
    first = arguments[0] if arguments else None
    return first[TICKET][1] if isinstance(first, dict) and TICKET in first else None
