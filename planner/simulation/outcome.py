"""What became of every request, and what clients would say of all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.load import Load
from planner.simulation.requests import Arrival

FloatArray = npt.NDArray[np.float64]

# Of an answer's gaps, so many may be longer than the target.
SLOW_GAPS = 0.01


@dataclass(slots=True, kw_only=True, eq=False)
class Answer:
    """One request's life; moments in seconds, None until they come.

    Attributes:
        arrival: What was asked.
        encoded: When its features were at the decoder.
        first: When its first token came.
        last: When its latest one came.
        refused: Whether a queue was full.
        slow_gaps: Gaps between its tokens that were longer than the target.
    """

    arrival: Arrival
    encoded: float | None = None
    first: float | None = None
    last: float | None = None
    refused: bool = False
    slow_gaps: int = 0

    @property
    def ttft_s(self) -> float:
        """From the request to its first token; infinite without one."""
        return math.inf if self.first is None else self.first - self.arrival.moment

    def is_good(self, ttft_s: float) -> bool:
        """Whether the first token came in time, and all but one in a hundred of the others."""
        allowed = max(1, int(SLOW_GAPS * self.arrival.output_tokens))
        return self.last is not None and self.ttft_s <= ttft_s and self.slow_gaps <= allowed


@dataclass(slots=True, kw_only=True)
class Gaps:
    """Times between tokens, each with the number of answers it was a gap of.

    Attributes:
        target_s: Longer ones are slow.
        since_s: Earlier ones are not kept.
        until_s: Later ones neither.
    """

    target_s: float
    since_s: float
    until_s: float
    _values: list[FloatArray] = field(default_factory=list)
    _weights: list[int] = field(default_factory=list)
    _ones: list[float] = field(default_factory=list)

    def note(self, moment: float, gaps: FloatArray, answers: int) -> None:
        """Steps that made a token of each of some answers; float64 [steps]."""
        if self.since_s <= moment < self.until_s and len(gaps):
            self._values.append(gaps)
            self._weights.append(answers)

    def note_one(self, moment: float, gap: float) -> None:
        """The gap of one answer."""
        if self.since_s <= moment < self.until_s:
            self._ones.append(gap)

    def weighted(self) -> tuple[FloatArray, FloatArray]:
        """All of them, and of how many answers each was one; both float64 [gaps]."""
        values = np.concatenate([np.array(self._ones), *self._values])
        lengths = [len(part) for part in self._values]
        return values, np.concatenate([np.ones(len(self._ones)), np.repeat(self._weights, lengths)])

    def percentiles(self, *shares: float) -> tuple[float, ...]:
        """Gaps that these shares of all do not exceed; 0 without any."""
        values, weights = self.weighted()
        if not len(values):
            return tuple(0.0 for _ in shares)
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        places = [np.searchsorted(reached, share * reached[-1]) for share in shares]
        return tuple(float(values[order[min(int(place), len(order) - 1)]]) for place in places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a load found at some replicas and decoders; times in seconds.

    Attributes:
        replicas: Encoder replicas; where they are scaled, the fewest.
        mean_replicas: On average over the time, those that start included.
        decoders: Decoders; of whole nodes, that do both, there are as many replicas.
        requests: Counted ones, those of the warm-up apart.
        refused: Of them, because a queue was full.
        good: Share of them within both targets.
        goodput: Of those, per second.
        ttft_p50_s: To the first token, refused ones apart.
        ttft_p99_s: The same.
        itl_p50_s: Between two tokens.
        itl_p99_s: The same.
        encode_p99_s: From the request until its features were at the decoder.
        replica_use: Share of the time in which replicas computed, while requests came.
        decoder_use: The same of decoders.
        slot_use: Share of the slots that sequences held.
        gateway_cores: Cores for gateways, a process on each; 0 where their costs are not known.
        gateway_use: Share of those that they use.
        front_cores: The same for the vision tier's fronts.
        front_use: The same.
        preemptions: Sequences that lost their slot.
        events: Of the simulation.
    """

    replicas: int
    decoders: int
    mean_replicas: float
    requests: int
    refused: int
    good: float
    goodput: float
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p50_s: float
    itl_p99_s: float
    encode_p99_s: float
    replica_use: float
    decoder_use: float
    slot_use: float
    gateway_cores: int
    gateway_use: float
    front_cores: int
    front_use: float
    preemptions: int
    events: int


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that a share of all do not exceed; 0 without any."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def outcome(answers: Sequence[Answer], gaps: Gaps, load: Load, **figures: Any) -> Outcome:
    """What became of the answers that count; `figures` are `Outcome`'s others."""
    counted = [one for one in answers if one.arrival.moment >= load.warm_up_s]
    waits = [one.ttft_s for one in counted if one.first is not None]
    encoded = [one.encoded - one.arrival.moment for one in counted if one.encoded is not None]
    good = sum(one.is_good(load.ttft_s) for one in counted)
    itl_p50, itl_p99 = gaps.percentiles(0.5, 0.99)
    return Outcome(
        requests=len(counted),
        refused=sum(one.refused for one in counted),
        good=good / max(1, len(counted)),
        goodput=good / (load.seconds - load.warm_up_s),
        ttft_p50_s=percentile(waits, 0.5),
        ttft_p99_s=percentile(waits, 0.99),
        itl_p50_s=itl_p50,
        itl_p99_s=itl_p99,
        encode_p99_s=percentile(encoded, 0.99),
        **figures,
    )
