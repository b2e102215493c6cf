"""How alike two towers' features are: the cosine of every token, level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

LOW_PERCENTILE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Cosines of one level's tokens with the reference's; 1 is the same direction."""

    mean: float
    first_percentile: float
    least: float


def likeness(made: Sequence[FloatArray], wanted: Sequence[FloatArray]) -> tuple[Likeness, ...]:
    """Compares features of the same images, one entry a level.

    Args:
        made: Features of each image, float32 [levels, N, H].
        wanted: The reference's.

    Raises:
        ValueError: the shapes differ, or there are no tokens.
    """
    shapes = [one.shape for one in made], [one.shape for one in wanted]
    if shapes[0] != shapes[1] or not made:
        raise ValueError(f"features of shapes {shapes[0]}, expected {shapes[1]}")
    mine, theirs = (
        np.concatenate(list(parts), axis=1).astype(np.float64) for parts in (made, wanted)
    )
    lengths = np.linalg.norm(mine, axis=-1) * np.linalg.norm(theirs, axis=-1)
    cosines = (mine * theirs).sum(axis=-1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return tuple(
        Likeness(
            mean=float(level.mean()),
            first_percentile=float(np.percentile(level, LOW_PERCENTILE)),
            least=float(level.min()),
        )
        for level in cosines
    )
