"""Top-k, top-p and min-p: which tokens of a row may be drawn."""

import math

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.leaders import Leaders
from decoder_service.sampling.parameters import SamplingParams

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Likeliest tokens looked at first when a nucleus is sought, and how many times more next.
_NUCLEUS, _MORE = 64, 16


def weights(scores: FloatArray, peak: float, temperature: float) -> FloatArray:
    """What the probabilities of tokens are proportional to; the likeliest token's is 1.

    Args:
        scores: float32 [N].
        peak: The row's highest score.
        temperature: Above 0.

    Returns:
        float32 [N].
    """
    found: FloatArray = scores - np.float32(
        peak
    )  # first, so that no temperature overflows the peak
    if temperature != 1:
        with np.errstate(over="ignore"):  # a far token's may become -inf: never drawn
            found /= np.float32(temperature)
    np.exp(found, out=found)
    return found


def kept(scores: FloatArray, leaders: Leaders, params: SamplingParams) -> IntArray | None:
    """Ids of the tokens that the filters keep, ascending; None when they keep all.

    A filter keeps tokens tied with the last one it keeps. The temperature changes no order, so
    only weights are divided by it.

    Source: transformers' TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper after its
    TemperatureLogitsWarper; parity in tests/parity/test_sampling.py.

    Args:
        scores: float32 [vocab].
        leaders: Of these scores.
        params: Not greedy.
    """
    ids: IntArray | None = None
    if 0 < params.top_k < len(scores):
        ids = leaders.first(params.top_k)
    if params.top_p < 1:
        ids = _nucleus(scores, leaders, params, ids)
    if params.min_p > 0:
        bound = leaders.peak + params.temperature * math.log(params.min_p)
        ids = leaders.at_least(bound) if ids is None else ids[scores[ids] >= bound]
    return ids


def _nucleus(
    scores: FloatArray, leaders: Leaders, params: SamplingParams, ids: IntArray | None
) -> IntArray | None:
    """The likeliest of `ids`, or of all tokens, that have `top_p` of their probability."""
    if ids is not None:
        return _first_of(ids, scores, leaders, params, total=None)
    total = float(weights(scores, leaders.peak, params.temperature).sum(dtype=np.float64))
    count = _NUCLEUS
    while count < len(scores):
        ids = leaders.first(count)
        found = _first_of(ids, scores, leaders, params, total)
        if found is not None or len(ids) < count:
            return found
        count *= _MORE
    return _first_of(np.arange(len(scores)), scores, leaders, params, total)


def _first_of(
    ids: IntArray,
    scores: FloatArray,
    leaders: Leaders,
    params: SamplingParams,
    total: float | None,
) -> IntArray | None:
    """The likeliest of `ids` whose weights come to `top_p` of `total`, by default of their own.

    None when all of them do not come to so much.
    """
    among = scores[ids]
    ordered = np.sort(among)[::-1]
    cumulative = np.cumsum(weights(ordered, leaders.peak, params.temperature), dtype=np.float64)
    wanted = params.top_p * (cumulative[-1] if total is None else total)
    end = int(np.searchsorted(cumulative, wanted))
    if end == len(ids):
        return None
    found: IntArray = ids[among >= ordered[end]]
    return found
