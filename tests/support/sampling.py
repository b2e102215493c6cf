"""Choosing for a batch of rows, as a step does."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.sampler import Mask, Sampler


def choose(
    logits: npt.NDArray[np.float32],
    samplers: Sequence[Sampler],
    masks: Sequence[Mask | None] | None = None,
) -> npt.NDArray[np.int64]:
    """One token per row of float32 [R, vocab]."""
    rows = zip(logits, samplers, masks or [None] * len(samplers), strict=True)
    tokens = [sampler.choose(row, mask) for row, sampler, mask in rows]
    assert None not in tokens, "logits that allow no choice"
    return np.array(tokens)
