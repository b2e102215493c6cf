"""Choosing for a batch of rows, as a step does."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.sampler import Mask, Sampler, likeliest


def choose(
    logits: npt.NDArray[np.float32],
    samplers: Sequence[Sampler],
    masks: Sequence[Mask | None] | None = None,
) -> npt.NDArray[np.int64]:
    """One token per row of float32 [R, vocab]."""
    rows = zip(
        logits, likeliest(logits).tolist(), samplers, masks or [None] * len(samplers), strict=True
    )
    return np.array([sampler.choose(row, best, mask) for row, best, sampler, mask in rows])
