"""Simulated time: what is to happen, in order."""

import heapq
from collections.abc import Callable
from itertools import count

Call = Callable[[], None]


class Clock:
    """Calls what is due, earliest first, and of equal moments what was asked for first.

    Attributes:
        now: Seconds since the simulation began.
        events: Calls so far.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._due: list[tuple[float, int, Call]] = []
        self._numbers = count()

    def at(self, moment: float, call: Call) -> None:
        """Has something called; a moment that has passed is now."""
        heapq.heappush(self._due, (max(moment, self.now), next(self._numbers), call))

    def run(self) -> None:
        """Goes on until nothing is due."""
        while self._due:
            self.now, _, call = heapq.heappop(self._due)
            self.events += 1
            call()
