"""What the engines are compared in, and how the numbers are made of the seconds: no I/O here."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS = "tandem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One quantity every engine is asked for.

    `batch` 0 means prefill of `context` tokens; else one token for each of `batch` sequences of
    `context` tokens. `goal` is the least ratio to the best peer.
    """

    name: str
    batch: int
    context: int
    goal: float

    @property
    def tokens_per_measurement(self) -> int:
        """Tokens that one measured second-value stands for."""
        return self.batch or self.context


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(name="prefill-1024", batch=0, context=1024, goal=2.0),
        Figure(name="decode-1-256", batch=1, context=256, goal=1.2),
        Figure(name="decode-1-2048", batch=1, context=2048, goal=1.2),
        Figure(name="decode-8-256", batch=8, context=256, goal=1.5),
        Figure(name="decode-16-256", batch=16, context=256, goal=1.5),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One figure of all engines: tokens per second, and our ratio to each peer.

    A ratio is the median of the ratios within each round: the machine's clock moves between
    rounds by more than the engines differ.
    """

    figure: Figure
    rounds: int
    tokens_per_second: Mapping[str, float]
    ratios: Mapping[str, float]
    errors: Mapping[str, str]

    @property
    def best_peer(self) -> str | None:
        """The peer we beat least; None when we or all peers are missing."""
        return min(self.ratios, key=self.ratios.__getitem__, default=None)

    @property
    def ratio(self) -> float | None:
        """Our speed over the best peer's."""
        return None if self.best_peer is None else self.ratios[self.best_peer]


def compare(
    figure: Figure, rounds: Sequence[Mapping[str, float]], errors: Mapping[str, str]
) -> Comparison:
    """Makes a comparison.

    Args:
        figure: What was measured.
        rounds: Seconds of one measurement by engine, a round each; an engine may be missing.
        errors: Why an engine is missing.
    """
    engines = {engine for measured in rounds for engine in measured}
    speeds = {
        engine: figure.tokens_per_measurement
        / statistics.median(measured[engine] for measured in rounds if engine in measured)
        for engine in engines
    }
    ratios = {
        peer: ratio
        for peer in engines - {OURS}
        if (ratio := paired_ratio(rounds, slower=peer, faster=OURS)) is not None
    }
    return Comparison(
        figure=figure,
        rounds=len(rounds),
        tokens_per_second=speeds,
        ratios=ratios,
        errors=dict(errors),
    )


def paired_ratio(
    rounds: Sequence[Mapping[str, float]], *, slower: str, faster: str
) -> float | None:
    """Median over the rounds of seconds of `slower` over seconds of `faster`; None without any."""
    ratios = [
        measured[slower] / measured[faster]
        for measured in rounds
        if slower in measured and faster in measured
    ]
    return statistics.median(ratios) if ratios else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed.

    Raises:
        ValueError: no values, or a share outside (0, 1].
    """
    if not values or not 0 < share <= 1:
        raise ValueError(f"percentile {share} of {len(values)} values, expected (0, 1] of some")
    return sorted(values)[math.ceil(share * len(values)) - 1]


def gaps(arrivals: Sequence[float], first: float, last: float) -> list[float]:
    """Times between tokens that end within [first, last], seconds."""
    pairs = zip(arrivals, arrivals[1:], strict=False)
    return [after - before for before, after in pairs if first <= after <= last]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextShape:
    """Shapes of a text model that decide what a decoded token reads."""

    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_dim: int
    vocab_size: int

    @property
    def weight_count(self) -> int:
        """Weights of the products of one token, the head included, the embeddings not."""
        attention = self.hidden_size * self.head_dim * 2 * (self.head_count + self.kv_head_count)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return self.layer_count * layer + self.hidden_size * self.vocab_size

    def kv_bytes(self, context: int, element_bytes: float) -> float:
        """Keys and values read for one token at `context`."""
        row = 2 * self.kv_head_count * self.head_dim * element_bytes
        return self.layer_count * row * context


SHAPES: Mapping[str, TextShape] = {
    "2b": TextShape(
        hidden_size=2048,
        intermediate_size=6144,
        layer_count=28,
        head_count=16,
        kv_head_count=8,
        head_dim=128,
        vocab_size=151936,
    ),
    "4b": TextShape(
        hidden_size=2560,
        intermediate_size=9728,
        layer_count=36,
        head_count=32,
        kv_head_count=8,
        head_dim=128,
        vocab_size=151936,
    ),
}


def weight_bits(precision: str, block_size: int | None) -> float:
    """Bits read per weight: its own and its share of the float32 scale."""
    bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[precision]
    scale = 32 / block_size if block_size and bits < 16 else 0
    return bits + scale
