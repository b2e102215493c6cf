"""Top-k, top-p and min-p: which tokens of a row may be drawn."""

import math

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.leaders import Leaders, Tokens
from decoder_service.sampling.parameters import SamplingParams

FloatArray = npt.NDArray[np.float32]

# Likeliest tokens looked at first when a nucleus is sought, and how many times more next.
_NUCLEUS, _MORE = 64, 16


def weights(scores: FloatArray, peak: float, temperature: float) -> FloatArray:
    """What the probabilities of tokens are proportional to; the likeliest token's is 1.

    Call it where overflows are ignored: a far token's quotient may become -inf.

    Args:
        scores: float32 [N].
        peak: The row's highest score.
        temperature: Above 0.

    Returns:
        float32 [N].
    """
    # First, so that no temperature overflows the peak.
    found: FloatArray = scores - np.float32(peak)
    if temperature != 1:
        found /= np.float32(temperature)
    np.exp(found, out=found)
    return found


def kept(leaders: Leaders, params: SamplingParams) -> Tokens | None:
    """The tokens that the filters keep; None when they keep all.

    A filter keeps tokens tied with the last one it keeps. The temperature changes no order, so
    only weights are divided by it.

    Source: transformers' TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper after its
    TemperatureLogitsWarper; parity in tests/parity/test_sampling.py.

    Args:
        leaders: Of the row.
        params: Not greedy.
    """
    tokens: Tokens | None = None
    if 0 < params.top_k < len(leaders.scores):
        tokens = leaders.first(params.top_k)
    if params.top_p < 1:
        tokens = _nucleus(leaders, params, tokens)
    if params.min_p > 0:
        bound = leaders.peak + params.temperature * math.log(params.min_p)
        tokens = (leaders if tokens is None else tokens).at_least(bound)
    return tokens


def _nucleus(leaders: Leaders, params: SamplingParams, tokens: Tokens | None) -> Tokens | None:
    """The likeliest of some tokens, or of all, that have `top_p` of their probability."""
    if tokens is not None:
        return _first_of(tokens, leaders, params, total=None)
    everything = weights(leaders.scores, leaders.peak, params.temperature)
    total = float(everything.sum(dtype=np.float64))
    count, vocab = _NUCLEUS, len(leaders.scores)
    while count < vocab:
        tokens = leaders.first(count)
        found = _first_of(tokens, leaders, params, total)
        if found is not None or len(tokens.ids) < count:
            return found
        count *= _MORE
    return _first_of(leaders.first(vocab), leaders, params, total)


def _first_of(
    tokens: Tokens, leaders: Leaders, params: SamplingParams, total: float | None
) -> Tokens | None:
    """The likeliest of some tokens whose weights come to `top_p` of `total`.

    By default, that is the sum of their own. None when all of them do not come to so much.
    """
    ordered = tokens.scores.copy()
    ordered.sort()
    ordered = ordered[::-1]
    cumulative = weights(ordered, leaders.peak, params.temperature).cumsum(dtype=np.float64)
    wanted = params.top_p * (cumulative[-1] if total is None else total)
    end = int(cumulative.searchsorted(wanted))
    return None if end == len(ordered) else tokens.at_least(float(ordered[end]))
