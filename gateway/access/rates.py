"""How much of something may be used in a minute: a bucket that fills steadily.

A bucket holds a minute's worth, which is therefore the largest burst. What costs more than a full
bucket is allowed when it is full, and leaves a debt: nothing is refused for ever, and the rate
holds over time.
"""

import time
from collections.abc import Callable

Clock = Callable[[], float]

# Of a unit: what a sum of floats may miss, so that a client that waits as told is let in.
_ROUNDING = 1e-6


class Bucket:
    """A bucket, full at first.

    Args:
        per_minute: Units that flow in within a minute, and that it holds.
        clock: Seconds that only grow.
    """

    def __init__(self, per_minute: int, *, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = float(per_minute)
        self._level_at_s = clock()

    def wait_s(self, cost: int) -> float:
        """Seconds until so much may be taken; 0 for now."""
        missing = min(cost, self.per_minute) - self._level_now()
        return 0.0 if missing <= _ROUNDING else missing * 60 / self.per_minute

    def take(self, cost: int) -> None:
        """Takes so much, which may leave a debt."""
        self._level = self._level_now() - cost
        self._level_at_s = self._clock()

    def remaining(self) -> int:
        """Whole units that are there; none while there is a debt."""
        return max(0, int(self._level_now() + _ROUNDING))

    def full_in_s(self) -> float:
        """Seconds until it is full, if nothing is taken."""
        return (self.per_minute - self._level_now()) * 60 / self.per_minute

    def resized(self, per_minute: int) -> "Bucket":
        """One of another rate, from which as much of a minute's worth is gone."""
        other = Bucket(per_minute, clock=self._clock)
        other.take(round((1 - self._level_now() / self.per_minute) * per_minute))
        return other

    def _level_now(self) -> float:
        grown = (self._clock() - self._level_at_s) * self.per_minute / 60
        return min(float(self.per_minute), self._level + grown)
