"""What work costs on a machine, as `tandem bench --costs` measured it, and the curves through it.

The file holds measured points. Here they become curves: seconds are c0 + c1 n + c2 n², with no
negative coefficient, so that nothing absurd comes of sizes that were not measured.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from planner.fields import PlanError, count, kind_of, number, read_object, required
from planner.processors import Processor, cores_of, processors_of

FloatArray = npt.NDArray[np.float64]

# Shares at which the file says how far steps lie from their median: 0, 1/100, ... 1.
SPREAD_POINTS = 101
# Tokens of one sequence that can be simulated.
MOST_CONTEXT = 2**17


# Which of start, linear and square a curve is made of, the likeliest first.
_TERMS = ([1], [0], [2], [0, 1], [1, 2], [0, 2], [0, 1, 2])


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds of work of size n: `start_s` + `linear_s` n + `square_s` n²."""

    start_s: float = 0.0
    linear_s: float = 0.0
    square_s: float = 0.0

    def seconds(self, *sizes: float) -> float:
        """Of one piece of work that joins several; squares are each size's own."""
        squares = sum(size * size for size in sizes)
        return self.start_s + self.linear_s * sum(sizes) + self.square_s * squares

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> Self:
        """The curve nearest to (size, seconds), by relative distance."""
        sizes, seconds = np.array(points, dtype=np.float64).T
        return cls(*_fitted(np.stack([np.ones_like(sizes), sizes, sizes**2]), seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Seconds of a decoder's step.

    Attributes:
        decode: (sequences, seconds) of steps that decode only, ascending, at `context` tokens.
        context: Tokens of a sequence in those.
        token_s: What one token of context more adds for one sequence.
        prompt: Of the prompt tokens beside them, by their number; its start counts when nothing
            decodes, for the weights are read once.
    """

    decode: tuple[tuple[int, float], ...]
    context: int
    token_s: float
    prompt: Curve

    def seconds(self, sequences: int, tokens: int, chunks: Sequence[tuple[int, int]]) -> float:
        """One step.

        Args:
            sequences: How many decode.
            tokens: Of context, of all of them together.
            chunks: (first, stop) of the prompt tokens beside them.
        """
        added, prompt = 0.0, self.prompt
        for first, stop in chunks:
            added += prompt.linear_s * (stop - first)
            added += prompt.square_s * (stop * stop - first * first)
        if sequences == 0:
            return prompt.start_s + added
        longer = self.token_s * (tokens - sequences * self.context)
        alone = self.decode_s(sequences)
        return max(alone / 2, alone + longer) + added

    def decode_s(self, sequences: int) -> float:
        """A step that decodes only; between measured numbers on a line, beyond them too."""
        points = self.decode
        if len(points) == 1 or sequences <= points[0][0]:
            return points[0][1]
        for (low, low_s), (high, high_s) in itertools.pairwise(points):
            if sequences <= high or high == points[-1][0]:
                return low_s + (high_s - low_s) * (sequences - low) / (high - low)
        raise AssertionError("the last pair ends the loop")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """What a decoder holds: sequences, waiting ones, tokens of KV, and tokens of a step."""

    slots: int
    waiting: int
    kv_tokens: int
    max_context: int
    prefill_chunk: int
    mixed_chunk: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """One machine's costs; patches are the tower's 16 x 16 pixels, seconds everywhere.

    Attributes:
        preprocess: An image before the tower, by its patches.
        encode: A pass of the tower, by the patches of each of its images.
        transfer: Features on their way, by patches.
        overhead_s: From the request to the first token, beyond queues and the models.
        spread: Steps' seconds over their median, at shares 0, 1/100, ... 1.
        max_batch_patches: Of one pass.
        max_queued_patches: That wait in a replica.
        start_s: Until a process of a tier serves, by tier.
        processors: What requests cost the processes around the models; {} where not measured.
        cores: Who shares a core with whom; () where each service has its own.
        step_beside_pass: How many times as long a step takes while a tower computes on another core
            of the same processor, for they share its memory; 1 where they share none.
    """

    preprocess: Curve
    encode: Curve
    transfer: Curve
    overhead_s: float
    steps: Steps
    spread: tuple[float, ...]
    decoder: DecoderLimits
    max_batch_patches: int
    max_queued_patches: int
    start_s: Mapping[str, float]
    processors: Mapping[str, Processor]
    cores: tuple[tuple[str, ...], ...]
    step_beside_pass: float = 1.0

    @classmethod
    def open(cls, path: Path) -> Self:
        """Reads a file that `tandem bench --costs` wrote.

        Raises:
            PlanError: it is no such file, or a field is not as it should be.
        """
        try:
            return cls.of(read_object(path))
        except PlanError as error:
            text = str(error)
            raise PlanError(text if str(path) in text else f"{path}: {text}") from error

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The costs in a file's object; see `open`."""
        decoder = _limits(required(given, "decoder", where="the file"))
        starts = given.get("startup_s", {})
        processors = processors_of(given.get("processors", {}))
        return cls(
            preprocess=_curve(given, "preprocess", "patches"),
            encode=_curve(given, "encode", "patches"),
            transfer=_curve(given, "transfer", "patches"),
            overhead_s=number("overhead_s", required(given, "overhead_s", where="the file")),
            steps=_steps(given, decoder.prefill_chunk),
            spread=_spread(required(given, "step_spread", where="the file")),
            decoder=decoder,
            max_batch_patches=_patches(given, "max_batch_patches"),
            max_queued_patches=_patches(given, "max_queued_patches"),
            start_s={tier: number(f"startup_s.{tier}", value) for tier, value in starts.items()},
            processors=processors,
            cores=cores_of(given.get("cores", []), processors),
            step_beside_pass=number(
                "step_beside_pass", given.get("step_beside_pass", 1.0), above=0
            ),
        )


def _patches(given: Mapping[str, Any], name: str) -> int:
    return count(name, required(given, name, where="the file"), least=1)


def _limits(given: Any) -> DecoderLimits:
    if not isinstance(given, dict):
        raise PlanError(f"decoder is {kind_of(given)}, expected an object")
    fields = {}
    for name in DecoderLimits.__dataclass_fields__:
        value = required(given, name, where="decoder")
        most = MOST_CONTEXT if name == "max_context" else 2**40
        fields[name] = count(f"decoder.{name}", value, least=int(name != "waiting"), most=most)
    return DecoderLimits(**fields)


def _points(given: Mapping[str, Any], field: str, *names: str) -> list[tuple[float, ...]]:
    rows = required(given, field, where="the file")
    if not isinstance(rows, list) or not rows:
        raise PlanError(f"{field} is {kind_of(rows)}, expected a list of at least one measurement")
    found = []
    for index, row in enumerate(rows):
        where = f"{field}[{index}]"
        if not isinstance(row, dict):
            raise PlanError(f"{where} is {kind_of(row)}, expected an object")
        values = [(name, required(row, name, where=where)) for name in (*names, "seconds")]
        found.append(tuple(number(f"{where}.{name}", value, above=0) for name, value in values))
    return found


def _curve(given: Mapping[str, Any], field: str, size: str) -> Curve:
    return Curve.through([(one[0], one[1]) for one in _points(given, field, size)])


def _steps(given: Mapping[str, Any], chunk: int) -> Steps:
    points = sorted(_points(given, "decode", "sequences", "context"))
    context = min(row[1] for row in points)
    near = {int(row[0]): row[2] for row in points if row[1] <= 2 * context}
    longer = [
        (seconds - near[int(sequences)]) / (sequences * (tokens - context))
        for sequences, tokens, seconds in points
        if tokens > 2 * context and int(sequences) in near
    ]
    return Steps(
        decode=tuple(sorted(near.items())),
        context=int(context),
        token_s=max(0.0, sum(longer) / len(longer)) if longer else 0.0,
        prompt=_prompt(given, chunk),
    )


def _prompt(given: Mapping[str, Any], chunk: int) -> Curve:
    """Of one step's prompt tokens; measured prompts took one step for each chunk of them."""
    sizes, seconds = np.array(_points(given, "prefill", "tokens")).T
    return Curve(*_fitted(np.stack([np.ceil(sizes / chunk), sizes, sizes**2]), seconds))


def _fitted(columns: FloatArray, seconds: FloatArray) -> list[float]:
    """The coefficients, none of them negative, that come nearest by relative distance.

    Args:
        columns: float64 [3, N], what each coefficient is multiplied by.
        seconds: float64 [N], measured.
    """
    scaled, best, least = columns / seconds, np.zeros(3), math.inf
    for used in _TERMS:
        found = np.linalg.lstsq(scaled[used].T, np.ones_like(seconds), rcond=None)[0]
        missed = float(((found @ scaled[used] - 1) ** 2).sum())
        # More terms must earn their place: points of one size fit any of them.
        if (found >= 0).all() and missed < least - 1e-9:
            best, least = np.zeros(3), missed
            best[used] = found
    return [float(value) for value in best]


def _spread(given: Any) -> tuple[float, ...]:
    if not isinstance(given, list) or len(given) != SPREAD_POINTS:
        raise PlanError(f"step_spread is {kind_of(given)}, expected a list of {SPREAD_POINTS}")
    return tuple(number(f"step_spread[{i}]", value, above=0) for i, value in enumerate(given))
