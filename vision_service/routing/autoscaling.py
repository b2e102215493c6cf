"""The autoscaling policy as Serve calls it, in its controller, ten times a second."""

import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

from vision_service.scaling.cost import START, USUAL, Fit
from vision_service.scaling.policy import Aims, Memory, ReplicaLoad, TierLoad, decide

# A replica whose figures have not changed for so long is hung: it carries nothing.
_SILENT_S = 5.0


class WorkPolicy:
    """Asks for as many replicas as predicted work needs; see scaling/policy.py.

    Serve makes one from the deployment's `policy_kwargs`: the fields of `Aims`.

    Args:
        clock: Seconds.
        aims: Fields of `Aims`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, **aims: Any) -> None:
        self._aims = Aims(**aims)
        self._clock = clock
        self._memory = Memory()
        # The time a replica stamped its figures with, and when that was new here. The stamp is of
        # another machine's clock, so it is compared with itself alone.
        self._stamps: dict[Any, tuple[float, float]] = {}

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and nothing for Serve to keep.

        Args:
            context: Serve's AutoscalingContext.
        """
        now_s = self._clock()
        load = TierLoad(
            replicas=self._loads(context, now_s),
            asked=context.target_num_replicas,
            unassigned=context.total_queued_requests or 0.0,
        )
        decision = decide(load, self._aims, self._memory, now_s)
        self._memory = decision.memory
        return decision.replicas, {}

    def _loads(self, context: Any, now_s: float) -> list[ReplicaLoad]:
        series = context.raw_metrics or {}
        told = [one for one in context.running_replicas if _has(series, one)]
        stamps = {one: series["waiting_s"][one][-1].timestamp for one in told}
        self._stamps = {
            one: known if (known := self._stamps.get(one)) and known[0] == stamp else (stamp, now_s)
            for one, stamp in stamps.items()
        }
        alive = [one for one in told if now_s - self._stamps[one][1] <= _SILENT_S]
        loads = [_latest(series, one) for one in alive]
        return loads + [_idle_like(loads)] * (len(context.running_replicas) - len(told))


def _has(series: Any, replica: Any) -> bool:
    return all(series.get(name, {}).get(replica) for name in ReplicaLoad.__slots__)


def _latest(series: Any, replica: Any) -> ReplicaLoad:
    return ReplicaLoad(**{name: series[name][replica][-1].value for name in ReplicaLoad.__slots__})


def _idle_like(loads: list[ReplicaLoad]) -> ReplicaLoad:
    """A replica that has only just started: nothing to do, as fast as the others."""
    return ReplicaLoad(
        waiting_s=0.0,
        running_s=0.0,
        offered=0.0,
        patches_per_s=fmean(one.patches_per_s for one in loads) if loads else Fit().patches_per_s,
        image_s=fmean(one.image_s for one in loads) if loads else START.seconds(USUAL),
    )
