"""Choosing a token from a row of logits, never with a loop over the vocabulary.

Applied in the order of decoder.proto: logit bias, penalties, the constraint's mask, temperature,
top-k, top-p, min-p. Each row is worked on alone: its outcome does not depend on its batch mates,
and what is made of it stays in the processor's cache.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from decoder_service.sampling import filters
from decoder_service.sampling.leaders import Leaders
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.penalties import Penalties

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Tokens of one group when a row is searched for its token.
_GROUP = 1024


class Mask(Protocol):
    """What bans tokens from one row, such as a grammar."""

    def mask(self, scores: FloatArray) -> None:
        """Sets the scores of banned tokens to -inf; float32 [vocab], changed in place."""


class Sampler:
    """One sequence's sampling state: its random stream and the tokens it has seen.

    Each sequence draws from a generator of its own, one number per sampled token, so a seed
    gives the same tokens alone and in any batch.

    Args:
        params: How its tokens are chosen.
        prompt_ids: Prompt token ids, shape [S].
        max_tokens: Most tokens `observe` will be told of.
    """

    __slots__ = ("params", "_penalties", "_generator", "_uniform")

    def __init__(
        self, params: SamplingParams, prompt_ids: npt.NDArray[np.int32], max_tokens: int
    ) -> None:
        self.params = params
        self._penalties = Penalties(params, prompt_ids, max_tokens)
        seed = None if params.seed is None else params.seed & (2**64 - 1)
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._uniform: float | None = None

    def uniform(self) -> float:
        """The random number of the next token, in [0, 1); the same until `observe`."""
        if self._uniform is None:
            self._uniform = self._generator.random()
        return self._uniform

    def observe(self, token_id: int) -> None:
        """Takes note of the token that was chosen; penalties count it from now on."""
        self._uniform = None
        self._penalties.observe(token_id)

    def choose(self, logits: FloatArray, likeliest: int, mask: Mask | None = None) -> int:
        """Chooses the next token; may be repeated until `observe`.

        Args:
            logits: float32 [vocab], finite by `finite_rows`; left as they are.
            likeliest: Their argmax.
            mask: What bans tokens.
        """
        if mask is not None or self._penalties.is_active:
            logits = logits.copy()
            self._penalties.apply(logits)
            if mask is not None:
                mask.mask(logits)
            if self.params.is_greedy:
                return int(logits.argmax())
        return likeliest if self.params.is_greedy else self._draw(logits)

    def _draw(self, scores: FloatArray) -> int:
        leaders = Leaders(scores)
        ids = filters.kept(scores, leaders, self.params)
        temperature = self.params.temperature
        if ids is None:
            weights = filters.weights(scores, leaders.peak, temperature)
            return invert_by_groups(weights, self.uniform())
        weights = filters.weights(scores[ids], leaders.peak, temperature)
        return int(ids[invert(weights, self.uniform())])


def likeliest(logits: FloatArray) -> IntArray:
    """The likeliest token of each row, the first of several; a NaN counts as above all.

    Args:
        logits: float32 [R, vocab].

    Returns:
        int64 [R].
    """
    found: IntArray = logits.argmax(axis=1)
    return found


def finite_rows(logits: FloatArray, best: IntArray) -> npt.NDArray[np.bool_]:
    """Rows a token can be chosen from: no NaN, no +inf, something above -inf.

    Args:
        logits: float32 [R, vocab].
        best: Their `likeliest`.

    Returns:
        bool [R].
    """
    return np.isfinite(logits[np.arange(len(best)), best])


def invert(weights: FloatArray, uniform: float) -> int:
    """Where the cumulative distribution passes `uniform`; `weights` need not sum to one."""
    cumulative = np.cumsum(weights, dtype=np.float64)
    return _passing(cumulative, uniform * cumulative[-1])


def invert_by_groups(weights: FloatArray, uniform: float) -> int:
    """`invert` over a whole vocabulary: first among sums of groups, then within one.

    A running sum of 150,000 numbers takes several times as long as their sums by groups.
    """
    starts = np.arange(0, len(weights), _GROUP)
    ends = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    group = _passing(ends, uniform * ends[-1])
    rest = uniform * ends[-1] - (ends[group - 1] if group else 0)
    within = np.cumsum(weights[starts[group] : starts[group] + _GROUP], dtype=np.float64)
    return int(starts[group]) + _passing(within, rest)


def _passing(cumulative: npt.NDArray[np.float64], target: float) -> int:
    """The first index above a target; rounding leads neither out nor to a token of no weight."""
    target = min(max(target, 0.0), np.nextafter(cumulative[-1], 0))
    return int(np.searchsorted(cumulative, target, side="right"))
