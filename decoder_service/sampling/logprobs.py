"""Log-probabilities of raw logits: before bias, penalties, masks and filters."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.leaders import Leaders

FloatArray = npt.NDArray[np.float32]


class TokenLogprobs(NamedTuple):
    """Log-probabilities at one output position, of the raw logits."""

    logprob: float
    top: tuple[tuple[int, float], ...]  # (token id, logprob), likeliest first


def token_logprobs(logits: FloatArray, token_id: int, top_count: int) -> TokenLogprobs:
    """Log-softmax at the chosen token and at the likeliest ones.

    Args:
        logits: float32 [vocab], raw.
        token_id: The chosen token.
        top_count: Likeliest tokens wanted; at most vocab are given.
    """
    leaders = Leaders(logits)
    weights = np.exp(logits - np.float32(leaders.peak))
    normalizer = leaders.peak + math.log(weights.sum(dtype=np.float64))
    top: tuple[tuple[int, float], ...] = ()
    if top_count:
        ids, scores = leaders.first(top_count)
        order = np.argsort(-scores, kind="stable")[:top_count]
        values = scores[order].astype(np.float64) - normalizer
        top = tuple(zip(ids[order].tolist(), values.tolist(), strict=True))
    return TokenLogprobs(float(logits[token_id]) - normalizer, top)
