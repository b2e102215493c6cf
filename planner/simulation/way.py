"""What lies between clients and the models: requests in, features across, tokens out.

Where every process has cores of its own, a request's way and its features' are figures as they were
measured, and a token is at its client when it is made. Where processes share cores (`cores` in the
file of costs), what each of them does is work on its core beside what else is done there.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from planner.costs import Costs
from planner.processors import PROCESSES, Processor
from planner.simulation.clock import Clock
from planner.simulation.core import Core, Service
from planner.simulation.outcome import Answer, Gaps

FloatArray = npt.NDArray[np.float64]
Call = Callable[[], None]

_NOTHING = Processor()


class Way(Protocol):
    """How requests, images and tokens get where they are wanted."""

    def request(self, answer: Answer, then: Call) -> None:
        """A request that comes now is on its way to the decoder."""

    def image(self, answer: Answer, then: Call) -> None:
        """Its image is on its way to a replica."""

    def features(self, answer: Answer, then: Call) -> None:
        """Its features are computed, and on their way to the decoder."""

    def first(self, answer: Answer) -> None:
        """The token behind a prompt, or behind what was computed again after a preemption."""

    def tokens(self, answers: Sequence[Answer], began: float, ends: FloatArray) -> None:
        """Tokens of steps that decode.

        Args:
            answers: Each got one token of every step.
            began: When the first step did.
            ends: When each step was through, float64 [steps]; the last one is now.
        """


class OwnCores:
    """Nobody shares a core.

    Args:
        clock: The simulation's.
        costs: Of the machines.
        gaps: Told of the time between tokens.
    """

    def __init__(self, clock: Clock, costs: Costs, gaps: Gaps) -> None:
        self._clock = clock
        self._costs = costs
        self._gaps = gaps

    def request(self, answer: Answer, then: Call) -> None:
        """See `Way`: one figure, spent before anything queues."""
        self._clock.at(self._clock.now + self._costs.overhead_s, then)

    def image(self, answer: Answer, then: Call) -> None:
        """See `Way`: the figures of features have it."""
        then()

    def features(self, answer: Answer, then: Call) -> None:
        """See `Way`."""
        crossing = self._costs.transfer.seconds(answer.arrival.patches)
        self._clock.at(self._clock.now + crossing, then)

    def first(self, answer: Answer) -> None:
        """See `Way`."""
        now = self._clock.now
        if answer.last is None:
            answer.first = now
        else:
            self._gap(answer, now, now - answer.last)
        answer.last = now

    def tokens(self, answers: Sequence[Answer], began: float, ends: FloatArray) -> None:
        """See `Way`."""
        slow = 0
        if len(ends) > 1 and answers:
            later = ends[1:] - ends[:-1]
            slow = int((later > self._gaps.target_s).sum())
            self._gaps.note(began, later, len(answers))
        first, last = float(ends[0]), float(ends[-1])
        for answer in answers:  # who was preempted in between has waited longer than the step
            self._gap(answer, began, first - (answer.last or began))
            answer.slow_gaps += slow
            answer.last = last

    def _gap(self, answer: Answer, moment: float, gap: float) -> None:
        self._gaps.note_one(moment, gap)
        answer.slow_gaps += gap > self._gaps.target_s


class SharedCores:
    """Processes share cores; each of them does one thing at a time.

    Args:
        clock: The simulation's.
        costs: Of the machine, with its processors and who shares a core.
        gaps: Told of the time between tokens as clients see them.
        cores: Of those that share one, by service.
    """

    def __init__(self, clock: Clock, costs: Costs, gaps: Gaps, cores: dict[str, Core]) -> None:
        self._clock = clock
        self._costs = costs
        self._gaps = gaps
        self._of = {name: costs.processors.get(name, _NOTHING) for name in PROCESSES}
        self._at = {name: Service(cores.get(name) or Core(clock)) for name in PROCESSES}

    def request(self, answer: Answer, then: Call) -> None:
        """See `Way`: through client and gateway; what is left of the measured way is waited for."""
        client, gateway = self._of["client"], self._of["gateway"]
        counted = sum(one.seconds(patches=0, tokens=1) for one in (client, gateway))
        on_way = _share(self._costs.overhead_s, counted)
        patches = answer.arrival.patches
        works = [("client", client.request_s, on_way), ("gateway", gateway.request_s, on_way)]
        if patches:
            on_way = self._share_of_image(patches)
            sent = client.image_s + client.patch_s * patches
            works[1:1] = [("client", sent, on_way)]
            works.append(("gateway", gateway.image_s, on_way))
        rest = max(0.0, self._costs.overhead_s - counted)
        self._through(works, lambda: self._clock.at(self._clock.now + rest, then))

    def image(self, answer: Answer, then: Call) -> None:
        """See `Way`."""
        on_way = self._share_of_image(answer.arrival.patches)
        self._through([("front", self._of["front"].image_s, on_way)], then)

    def features(self, answer: Answer, then: Call) -> None:
        """See `Way`: through front and gateway; the rest of what was measured is waited for."""
        patches = answer.arrival.patches
        on_way = self._share_of_image(patches)
        works = [(name, self._of[name].patch_s * patches, on_way) for name in ("front", "gateway")]
        rest = max(0.0, self._costs.transfer.seconds(patches) - self._counted(patches))
        self._through(works, lambda: self._clock.at(self._clock.now + rest, then))

    def _counted(self, patches: int) -> float:
        """Processor seconds that all processes have for an image."""
        return sum(one.image_s + one.patch_s * patches for one in self._of.values())

    def _share_of_image(self, patches: int) -> float:
        return _share(self._costs.transfer.seconds(patches), self._counted(patches))

    def first(self, answer: Answer) -> None:
        """See `Way`."""
        self._token(answer)

    def tokens(self, answers: Sequence[Answer], began: float, ends: FloatArray) -> None:
        """See `Way`."""
        assert len(ends) == 1, "where cores are shared, steps are taken one by one"
        for answer in answers:
            self._token(answer)

    def _token(self, answer: Answer) -> None:
        works = [(name, self._of[name].token_s, 1.0) for name in ("gateway", "client")]
        self._through(works, lambda: self._arrived(answer))

    def _arrived(self, answer: Answer) -> None:
        """A token is at its client."""
        now = self._clock.now
        if answer.last is None:
            answer.first = now
        else:
            gap = now - answer.last
            self._gaps.note_one(now, gap)
            answer.slow_gaps += gap > self._gaps.target_s
        answer.last = now

    def _through(self, works: Sequence[tuple[str, float, float]], then: Call) -> None:
        """Has processes work one after the other, and behind that what nobody waits for.

        Args:
            works: Whose, of how many processor seconds, and which share of them is waited for.
            then: Called when all that is waited for is done.
        """

        def step(index: int) -> None:
            if index < len(works):
                name, seconds, on_way = works[index]
                self._at[name].run(seconds * on_way, lambda: step(index + 1))
                return
            then()
            for name, seconds, on_way in works:
                if on_way < 1.0:
                    self._at[name].run(seconds * (1.0 - on_way), _nothing)

        step(0)


def _nothing() -> None:
    """What follows work that nobody waits for."""


def _share(measured: float, counted: float) -> float:
    """How much of the processor seconds of a way can lie on it: what it was measured to take, alone
    on the machine. The others are spent beside it: on other cores, or when it is over.
    """
    return min(1.0, measured / counted) if counted > 0.0 else 1.0


def shared_cores(clock: Clock, costs: Costs) -> dict[str, Core]:
    """The cores that services share, by service; what idle processes take of one is gone."""
    found = dict[str, Core]()
    for names in costs.cores:
        idle = sum(costs.processors.get(name, _NOTHING).idle for name in names)
        core = Core(clock, speed=1.0 - idle)
        found.update(dict.fromkeys(names, core))
    return found
