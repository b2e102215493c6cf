"""Choosing a token from a row of logits, never with a loop over the vocabulary.

Applied in the order of decoder.proto: logit bias, penalties, the constraint's mask, temperature,
top-k, top-p, min-p. Each row is worked on alone: its outcome does not depend on its batch mates,
and what is made of it stays in the processor's cache.
"""

import math
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

    def resume(self, output_ids: npt.NDArray[np.int32]) -> None:
        """Goes on behind an output that another sampler of the same seed chose, int32 [R]."""
        if not self.params.is_greedy:
            self._generator.random(len(output_ids))  # one number was drawn for each
        for token_id in output_ids.tolist() if self.params.has_penalties else ():
            self._penalties.observe(token_id)

    def choose(self, logits: FloatArray, mask: Mask | None = None) -> int | None:
        """Chooses the next token; may be repeated until `observe`.

        Args:
            logits: float32 [vocab]; left as they are.
            mask: What bans tokens.

        Returns:
            The token; None when the logits allow no choice: NaN, +inf, nothing above -inf.
        """
        scores = logits
        if mask is not None or self._penalties.is_active:
            if not math.isfinite(logits[logits.argmax()]):  # a mask may hide what is wrong
                return None
            scores = logits.copy()
            self._penalties.apply(scores)
            if mask is not None:
                mask.mask(scores)
        if not self.params.is_greedy:
            return self._draw(scores)
        best = int(scores.argmax())  # that of a NaN, if there is one
        return best if math.isfinite(scores[best]) else None

    def _draw(self, scores: FloatArray) -> int | None:
        leaders = Leaders(scores)
        if not math.isfinite(leaders.peak):
            return None
        with np.errstate(over="ignore"):  # in the weights
            tokens = filters.kept(leaders, self.params)
            drawn = scores if tokens is None else tokens.scores
            weights = filters.weights(drawn, leaders.peak, self.params.temperature)
        if tokens is None:
            return invert_by_groups(weights, self.uniform())
        return int(tokens.ids[invert(weights, self.uniform())])


def invert(weights: FloatArray, uniform: float) -> int:
    """Where the cumulative distribution passes `uniform`; `weights` need not sum to one."""
    cumulative = weights.cumsum(dtype=np.float64)
    return _passing(cumulative, uniform * float(cumulative[-1]))


def invert_by_groups(weights: FloatArray, uniform: float) -> int:
    """`invert` over a whole vocabulary: first among sums of groups, then within one.

    A running sum of 150,000 numbers takes several times as long as their sums by groups.
    """
    starts = np.arange(0, len(weights), _GROUP)
    ends = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    target = uniform * float(ends[-1])
    group = _passing(ends, target)
    rest = target - float(ends[group - 1]) if group else target
    within = weights[starts[group] : starts[group] + _GROUP].cumsum(dtype=np.float64)
    return int(starts[group]) + _passing(within, rest)


def _passing(cumulative: npt.NDArray[np.float64], target: float) -> int:
    """The first index above a target; rounding leads neither out nor to a token of no weight."""
    target = min(max(target, 0.0), math.nextafter(float(cumulative[-1]), 0))
    return int(cumulative.searchsorted(target, side="right"))
