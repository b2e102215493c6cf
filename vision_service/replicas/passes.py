"""Which of the waiting images a tower encodes next, and together: the policy, without a clock.

Work is estimated in seconds, patches by the pace of the last pass. An image's turn is its arrival
plus its own work, so small ones go before a huge one, but none that come later than its own work
would have taken: nobody waits for ever. While a long pass runs, a second, much shorter one may run
beside it on the same cores, which is to a small image what cutting the long pass would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

# A pass runs beside another one that has at least so many times its work, and time, left.
BESIDE_FACTOR = 4.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiting:
    """One image that waits, or is encoded.

    Attributes:
        patches: P.
        arrived_s: When it came, seconds of any clock.
    """

    patches: int
    arrived_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A pass that runs: patches of all its images, when it began, and what it should take."""

    patches: int
    began_s: float
    estimate_s: float

    def left_s(self, now_s: float) -> float:
        """Seconds that it should still take, at least 0."""
        return max(0.0, self.began_s + self.estimate_s - now_s)


W = TypeVar("W", bound=Waiting)


def next_pass(waiting: Sequence[W], *, patches_per_s: float, max_patches: int) -> list[W]:
    """The images of the next pass: the one whose turn it is, and others in turn as they fit.

    Args:
        waiting: In any order.
        patches_per_s: The tower's pace.
        max_patches: Of a pass; only an image alone may have more.
    """
    in_turn = sorted(waiting, key=lambda one: one.arrived_s + one.patches / patches_per_s)
    chosen = in_turn[:1]
    patches = sum(one.patches for one in chosen)
    for one in in_turn[1:]:
        if patches + one.patches <= max_patches:
            chosen.append(one)
            patches += one.patches
    return chosen


def pass_beside(
    waiting: Sequence[W], running: Running, *, now_s: float, patches_per_s: float, max_patches: int
) -> list[W]:
    """The images of a pass that may run while a long one does; none where it is not long enough.

    Args:
        waiting: In any order.
        running: The pass that runs.
        now_s: The clock.
        patches_per_s: The tower's pace.
        max_patches: Of any pass.
    """
    in_time = running.left_s(now_s) * patches_per_s
    most = int(min(max_patches, running.patches / BESIDE_FACTOR, in_time / BESIDE_FACTOR))
    small = [one for one in waiting if one.patches <= most]
    return next_pass(small, patches_per_s=patches_per_s, max_patches=most)


def is_worth_stopping(running: Running, wanted_patches: int, *, now_s: float) -> bool:
    """Whether to drop a pass some of whose images nobody wants any more, and begin again.

    True when nobody wants any, or when the wanted ones alone take less than the pass has left.

    Args:
        running: The pass.
        wanted_patches: Of its images that are still waited for.
        now_s: The clock.
    """
    alone_s = running.estimate_s * wanted_patches / running.patches
    return wanted_patches == 0 or alone_s < running.left_s(now_s)
