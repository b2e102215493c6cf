"""What a replica knows of its own load: the work it holds, the pass that runs, and its speed."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vision_service.scaling.cost import USUAL, Fit, Work
from vision_service.scaling.policy import ReplicaLoad

_RATE_S = 30.0  # over about how long the rate of coming work is taken
_IMAGE_SHARE = 0.1  # of the latest image in the work of a usual one


class LoadMeter:
    """Adds up the work of one replica. All methods run on one event loop.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fit = Fit()
        self._held = Work(patches=0, pairs=0)
        self._passes: dict[int, tuple[Work, float]] = {}
        self._next_pass = 0
        self._usual_s: float | None = None
        # Seconds of work per second, as it was at a time; it fades from then on.
        self._rate, self._rate_at_s = 0.0, clock()

    @property
    def fit(self) -> Fit:
        """What passes have said of this replica's speed."""
        return self._fit

    @contextmanager
    def holding(self, work: Work) -> Iterator[None]:
        """Counts an image from when it is here until it is done or given up."""
        seconds = self._fit.cost.seconds(work)
        self._rate, self._rate_at_s = self._faded_rate() + seconds / _RATE_S, self._clock()
        if self._usual_s is None:
            self._usual_s = seconds
        self._usual_s += _IMAGE_SHARE * (seconds - self._usual_s)
        self._held = Work.sum([self._held, work])
        try:
            yield
        finally:
            self._held = self._held.without(work)

    def began(self, work: Work) -> int:
        """A pass has begun; returns its number."""
        self._next_pass += 1
        self._passes[self._next_pass] = (work, self._clock())
        return self._next_pass

    def ended(self, number: int, *, measures: bool) -> None:
        """A pass has ended.

        Args:
            number: What `began` returned.
            measures: Whether it ran alone and to its end, so that its time says what it takes.
        """
        work, began_s = self._passes.pop(number)
        if measures:
            self._fit = self._fit.after(work, max(self._clock() - began_s, 1e-6))

    def load(self) -> ReplicaLoad:
        """The load now."""
        running = Work.sum(work for work, _ in self._passes.values())
        waiting = self._held.without(running)
        return ReplicaLoad(
            waiting_s=self._fit.cost.seconds(waiting),
            running_s=sum(self._left_s(*one) for one in self._passes.values()),
            offered=self._faded_rate(),
            patches_per_s=self._fit.patches_per_s,
            image_s=self._fit.cost.seconds(USUAL) if self._usual_s is None else self._usual_s,
        )

    def _left_s(self, work: Work, began_s: float) -> float:
        """Of a pass that runs; a late one has as long to go again as it is late."""
        return abs(self._fit.cost.seconds(work) - (self._clock() - began_s))

    def _faded_rate(self) -> float:
        return self._rate * math.exp((self._rate_at_s - self._clock()) / _RATE_S)
