"""How many replicas there should be: enough that a new image waits no longer than it may.

All is in seconds of work, as each replica predicts them of its own queue. What waits and what runs,
shared by the replicas, is how long a new image would wait; what has come lately says how many are
kept busy in the long run. More replicas are asked for at once. Fewer are when the rest would have
carried the load with room to spare all through a while, so a constant load ends at one number and
stays there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one replica has to do, by its own prediction.

    Attributes:
        waiting_s: Work of all images that wait in it, seconds.
        running_s: What the passes that run should still take, seconds.
        offered: Work that has come lately, seconds of it per second.
        patches_per_s: Its speed, at a usual image.
        image_s: Work of an image as they have come lately, seconds.
    """

    waiting_s: float
    running_s: float
    offered: float
    patches_per_s: float
    image_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLoad:
    """What all replicas have to do.

    Attributes:
        replicas: Those that run and answer.
        asked: How many were asked for, including those that are not there yet.
        unassigned: Images that no replica has taken yet.
    """

    replicas: Sequence[ReplicaLoad]
    asked: int
    unassigned: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Aims:
    """What the number of replicas is to reach.

    Attributes:
        fewest: Replicas that there are without any load; 0 ends the last one, too.
        most: Replicas that there may be.
        wait_s: Longest predicted wait of a new image, seconds; above 0.
        busy: Share of their time that replicas may work in the long run, above 0.
        spare: Share of `wait_s` and of `busy` that must do after replicas are ended, in (0, 1].
        calm_s: How long the rest must have carried the load before replicas are ended, seconds.
    """

    fewest: int
    most: int
    wait_s: float = 2.0
    busy: float = 0.85
    spare: float = 0.6
    calm_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a decision leaves for the next one.

    Attributes:
        calm_since_s: Since when fewer replicas would do; None: they would not.
        most_needed: The most that were needed since then.
    """

    calm_since_s: float | None = None
    most_needed: int = 0


class Decision(NamedTuple):
    """How many replicas there should be, and what the next decision must know."""

    replicas: int
    memory: Memory


class _Total(NamedTuple):
    """The tier's load in seconds of an average replica.

    `waiting_s` is all there is to do, `image_s` that of one image, `offered` what comes per second.
    """

    waiting_s: float
    image_s: float
    offered: float


def decide(load: TierLoad, aims: Aims, memory: Memory, now_s: float) -> Decision:
    """The number of replicas for a load.

    Args:
        load: As it is now.
        aims: What to reach.
        memory: That of the last decision; `Memory()` before the first.
        now_s: Any clock that only goes forward.
    """
    total = _total(load)
    needed = _needed(total, wait_s=aims.wait_s, busy=aims.busy)
    if not load.replicas and load.unassigned:
        needed = 1  # nothing says yet how much work that is
    if needed >= load.asked:
        return Decision(_bounded(needed, aims), Memory())
    rest = _needed(total, wait_s=aims.wait_s * aims.spare, busy=aims.busy * aims.spare)
    if max(needed, rest) >= load.asked:
        return Decision(_bounded(load.asked, aims), Memory())
    return _when_calm(max(needed, rest), load.asked, aims, memory, now_s)


def wait_s(load: TierLoad) -> float:
    """Predicted wait of a new image, seconds: all there is to do, shared by the replicas."""
    return _total(load).waiting_s / max(1, len(load.replicas))


def _when_calm(fewer: int, asked: int, aims: Aims, memory: Memory, now_s: float) -> Decision:
    """`fewer` replicas, or the most of the calm time, once that was long enough."""
    since_s = now_s if memory.calm_since_s is None else memory.calm_since_s
    most = max(fewer, memory.most_needed)
    if now_s - since_s >= aims.calm_s:
        return Decision(_bounded(most, aims), Memory())
    return Decision(_bounded(asked, aims), Memory(calm_since_s=since_s, most_needed=most))


def _total(load: TierLoad) -> _Total:
    replicas = load.replicas
    if not replicas:
        return _Total(0.0, 0.0, 0.0)
    pace = fmean(one.patches_per_s for one in replicas)
    image_s = fmean(one.image_s * one.patches_per_s for one in replicas) / pace
    there_s = sum((one.waiting_s + one.running_s) * one.patches_per_s for one in replicas) / pace
    offered = sum(one.offered * one.patches_per_s for one in replicas) / pace
    return _Total(there_s + load.unassigned * image_s, image_s, offered)


def _needed(total: _Total, *, wait_s: float, busy: float) -> int:
    """The fewest that keep both bounds.

    An image is not shared between replicas, so of long ones each may have as much as one.
    """
    return max(ceil(total.waiting_s / max(wait_s, total.image_s)), ceil(total.offered / busy))


def _bounded(replicas: int, aims: Aims) -> int:
    return max(aims.fewest, min(aims.most, replicas))
