"""Processor cores: whatever runs on one at the same time gets an equal share of it."""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from planner.simulation.clock import Clock

Call = Callable[[], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """Work on a core; it is done when each job there has got `until_s` since the beginning."""

    until_s: float
    seconds: float
    done: Call


class Core:
    """One core, or all the cores that a process has to itself.

    Jobs share it evenly (processor sharing), as threads do that are always ready to run.

    Args:
        clock: The simulation's.
        speed: Share of the core that is left for jobs, above 0.
    """

    def __init__(self, clock: Clock, *, speed: float = 1.0) -> None:
        self._clock = clock
        self._speed = speed
        self._jobs: list[tuple[float, int, Job]] = []
        self._numbers = count()
        self._given_s = 0.0  # what a job that was always there would have got
        self._looked_s = 0.0  # when that was so
        self._version = 0

    def run(self, seconds: float, done: Call) -> Job:
        """Begins a job of so many processor seconds; `done` is called at its end."""
        self._advance()
        job = Job(until_s=self._given_s + seconds, seconds=seconds, done=done)
        heapq.heappush(self._jobs, (job.until_s, next(self._numbers), job))
        self._schedule()
        return job

    def left_s(self, job: Job) -> float:
        """Processor seconds that a job still wants, at least 0."""
        self._advance()
        return max(0.0, job.until_s - self._given_s)

    def _advance(self) -> None:
        now = self._clock.now
        if self._jobs:
            self._given_s += (now - self._looked_s) * self._speed / len(self._jobs)
        self._looked_s = now

    def _schedule(self) -> None:
        self._version += 1
        if not self._jobs:
            return
        version = self._version
        left = max(0.0, self._jobs[0][0] - self._given_s) * len(self._jobs) / self._speed
        self._clock.at(self._clock.now + left, lambda: self._end(version))

    def _end(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        job = heapq.heappop(self._jobs)[2]
        self._schedule()
        job.done()


class Service:
    """A process that does one thing at a time, in order, on a core that others may use too.

    Args:
        core: Where it runs.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: deque[tuple[float, Call]] = deque()
        self._runs = False

    def run(self, seconds: float, done: Call) -> None:
        """Does so many processor seconds of work when what came before is done."""
        self._waiting.append((seconds, done))
        if not self._runs:
            self._next()

    def _next(self) -> None:
        self._runs = bool(self._waiting)
        if self._runs:
            seconds, done = self._waiting.popleft()
            self._core.run(seconds, lambda: self._ended(done))

    def _ended(self, done: Call) -> None:
        self._next()
        done()
