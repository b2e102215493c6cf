"""How fast the machine is just now, beside what it was when costs were measured.

A machine that others have too is up to twice as slow for some ten seconds, and fast again: a step
that took 4 ms takes 9 ms. Costs that were measured a minute before a run are then another
machine's. So a few questions before and after each part of a run say what its costs are.
"""

import itertools
import statistics
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Self

from deploy.client import ChatClient
from deploy.costs import questions
from planner.costs import Costs, Curve
from planner.processors import Processor

ROUNDS = 2
WORDS, TOKENS = 16, 48  # of the answer whose steps are looked at
SIDE = (448, 448)


@dataclass(frozen=True, slots=True)
class Speed:
    """How many times as long as costs say each kind of work takes.

    Attributes:
        steps: A decoder's steps.
        prompts: Its prompt tokens.
        passes: The tower's passes, and all else on their core: files, features on their way, the
            gateway, the front and the clients.
    """

    steps: float
    prompts: float
    passes: float

    @classmethod
    def between(cls, one: Self, other: Self) -> Self:
        """Of the time between two moments."""
        return cls(
            fmean((one.steps, other.steps)),
            fmean((one.prompts, other.prompts)),
            fmean((one.passes, other.passes)),
        )

    def scaled(self, costs: Costs) -> Costs:
        """What work costs at this speed."""
        steps = costs.steps
        return replace(
            costs,
            preprocess=_times(costs.preprocess, self.passes),
            encode=_times(costs.encode, self.passes),
            transfer=_times(costs.transfer, self.passes),
            overhead_s=costs.overhead_s * self.passes,
            processors={name: self._around(one) for name, one in costs.processors.items()},
            steps=replace(
                steps,
                decode=tuple((count, seconds * self.steps) for count, seconds in steps.decode),
                token_s=steps.token_s * self.steps,
                prompt=_times(steps.prompt, self.prompts),
            ),
        )

    def _around(self, one: Processor) -> Processor:
        return Processor(**{name: value * self.passes for name, value in asdict(one).items()})


class Speedometer:
    """Asks and compares; nothing else may be asked meanwhile.

    Args:
        client: Of the gateway.
        costs: Of this machine, some time before.
    """

    def __init__(self, client: ChatClient, costs: Costs) -> None:
        self._client = client
        self._costs = costs
        self._words = questions.Words()

    def now(self) -> Speed:
        """The machine's speed, in about two seconds."""
        steps, prompts, passes = zip(*(self._once() for _ in range(ROUNDS)), strict=True)
        return Speed(fmean(steps), fmean(prompts), fmean(passes))

    def _once(self) -> tuple[float, float, float]:
        costs = self._costs
        found = questions.ask(self._client, self._words.text(WORDS), TOKENS)
        arrivals, length = found.arrivals[questions.SETTLING :], found.prompt_tokens
        # As `measurement.measure` times them: a step where the client is, the others by the tiers.
        gap = statistics.median(late - soon for soon, late in itertools.pairwise(arrivals))
        conversation, patches = questions.about_an_image(self._client, self._words, SIDE)
        seen = questions.timed(self._client, conversation, 2)
        return (
            gap / costs.steps.seconds(1, length + TOKENS // 2, ()),
            found.spent.prefill_ms / 1e3 / costs.steps.seconds(0, 0, [(0, length)]),
            seen.spent.encode_ms / 1e3 / costs.encode.seconds(patches),
        )


def _times(curve: Curve, factor: float) -> Curve:
    return Curve(curve.start_s * factor, curve.linear_s * factor, curve.square_s * factor)
