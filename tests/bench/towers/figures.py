"""What the seconds and features of towers say: no I/O here."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deploy.export.vision.likeness import likeness
from kernels import library
from tests.bench.figures import paired_ratio
from tests.bench.towers.engines import BASE, INT8, OURS

FloatArray = npt.NDArray[np.float32]

BLOCKS, WIDTH = 24, 1024
PRODUCT_MACS = 302e6  # of a patch, in all products
INT8_FACTORS = {"avx512": 4, "avxvnni": 4, "avx2": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosines:
    """Of an engine's tokens with the reference's, of the level where they are least."""

    mean: float
    low: float  # the first percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerFigure:
    """One engine at one size; `share` is of the ceiling of its own arithmetic."""

    patches: int
    engine: str
    ratio: float | None
    patches_per_s: float
    gmac_per_s: float
    share: float
    cosines: Cosines | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPeer:
    """The peer that the fast form beats least at one size, and by how much."""

    patches: int
    engine: str
    ratio: float


def figures(
    patches: int,
    rounds: Sequence[Mapping[str, float]],
    peak: float,
    alike: Mapping[str, Cosines],
) -> list[TowerFigure]:
    """What the seconds of all rounds say of each engine.

    Args:
        patches: Of the image.
        rounds: Seconds by engine, a round each.
        peak: Float32 multiplications and additions per second.
        alike: Cosines by engine, where they are known.
    """
    macs = patches * (PRODUCT_MACS + 2 * BLOCKS * WIDTH * patches)
    found = []
    for engine in rounds[0]:
        seconds = statistics.median(measured[engine] for measured in rounds)
        factor = INT8_FACTORS.get(library.instruction_set(), 1) if engine in INT8 else 1
        found.append(
            TowerFigure(
                patches=patches,
                engine=engine,
                ratio=paired_ratio(rounds, slower=BASE, faster=engine),
                patches_per_s=patches / seconds,
                gmac_per_s=macs / seconds / 1e9,
                share=macs / seconds / (peak * factor),
                cosines=alike.get(engine),
            )
        )
    return found


def best_peer(patches: int, rounds: Sequence[Mapping[str, float]]) -> BestPeer | None:
    """The best peer of any precision; None without the fast form or without peers."""
    ratios = {
        engine: ratio
        for engine in rounds[0]
        if engine not in OURS
        and (ratio := paired_ratio(rounds, slower=engine, faster=OURS[0])) is not None
    }
    if not ratios:
        return None
    engine = min(ratios, key=ratios.__getitem__)
    return BestPeer(patches=patches, engine=engine, ratio=ratios[engine])


def cosines(made: FloatArray, wanted: FloatArray) -> Cosines:
    """How alike features of one image are, both float32 [levels, N, hidden]."""
    levels = likeness([made], [wanted])
    return Cosines(
        mean=min(level.mean for level in levels),
        low=min(level.first_percentile for level in levels),
    )
