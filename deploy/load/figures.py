"""The figures of a load, from its records alone."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from deploy.load.plan import LoadPlan
from deploy.load.records import Record

USAGE, CHUNKS = "usage", "chunks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How values lie, milliseconds; of percentiles each is a value that was measured."""

    mean: float
    p50: float
    p90: float
    p99: float
    most: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self | None:
        """None of no values."""
        values = sorted(value * 1e3 for value in seconds)
        if not values:
            return None
        return cls(
            mean=sum(values) / len(values),
            p50=_ranked(values, 50),
            p90=_ranked(values, 90),
            p99=_ranked(values, 99),
            most=values[-1],
        )


def _ranked(values: Sequence[float], percent: int) -> float:
    """Nearest rank, of ascending values."""
    return values[max(math.ceil(len(values) * percent / 100), 1) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a load showed.

    Attributes:
        plan: What was asked for, without a key.
        model: The name that was asked.
        answered: Whole answers; every time below is of them alone.
        unfinished: Sent, but stopped by the user before they ended.
        errors: How many of each kind.
        duration_s: From when the first was due to the last end.
        tokens_counted_by: "usage" where the endpoint told of every answer, else "chunks": then a
            piece of text counts as one token, which is too few for servers that join tokens.
        per_token_ms: Of each answer, the mean time of a token after the first.
        itl_ms: Between pieces of text that follow each other, of all answers.
        lag_ms: How late this client sent.
        good: Answers within the targets.
    """

    plan: LoadPlan
    model: str
    answered: int
    unfinished: int
    errors: Mapping[str, int]
    duration_s: float
    requests_per_s: float
    tokens_per_s: float
    prompt_tokens: int | None
    completion_tokens: int
    tokens_counted_by: str
    ttft_ms: Spread | None
    itl_ms: Spread | None
    per_token_ms: Spread | None
    e2e_ms: Spread | None
    lag_ms: Spread | None
    good: int
    goodput_per_s: float

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def figures(
    plan: LoadPlan, model: str, records: Sequence[Record], *, unfinished: int = 0
) -> Figures:
    """Sums a load up; of no records every rate is 0."""
    whole = [record for record in records if record.answer.error is None]
    good = [record for record in whole if record.meets(ttft_ms=plan.ttft_ms, itl_ms=plan.itl_ms)]
    seconds = _duration(records)
    told = all(record.answer.completion_tokens is not None for record in whole)
    prompts = [record.answer.prompt_tokens for record in whole]
    tokens = sum(record.answer.tokens for record in whole)
    return Figures(
        plan=plan,
        model=model,
        answered=len(whole),
        unfinished=unfinished,
        errors=dict(Counter(r.answer.error for r in records if r.answer.error is not None)),
        duration_s=seconds,
        requests_per_s=_rate(len(whole), seconds),
        tokens_per_s=_rate(tokens, seconds),
        prompt_tokens=None if None in prompts else sum(count or 0 for count in prompts),
        completion_tokens=tokens,
        tokens_counted_by=USAGE if told else CHUNKS,
        ttft_ms=Spread.of(record.ttft_s for record in whole if record.ttft_s is not None),
        itl_ms=Spread.of(gap for record in whole for gap in record.gaps_s),
        per_token_ms=Spread.of(r.per_token_s for r in whole if r.per_token_s is not None),
        e2e_ms=Spread.of(record.e2e_s for record in whole),
        lag_ms=Spread.of(record.lag_s for record in records),
        good=len(good),
        goodput_per_s=_rate(len(good), seconds),
    )


def _duration(records: Sequence[Record]) -> float:
    if not records:
        return 0.0
    return max(r.answer.ended_s for r in records) - min(r.due_s for r in records)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
