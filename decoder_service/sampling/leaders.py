"""Finding a row's likeliest tokens without looking at every token more than once.

A partial sort of 150,000 scores takes ten times as long as one pass over them. So the tokens are
dealt into groups, and one pass finds the highest score of each. If `n` groups reach some score, so
do at least `n` tokens; and every token that reaches it lies in one of those groups.
"""

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Tokens of a group. They lie a stride apart, so that the pass is a maximum of whole vectors.
_GROUP = 32

# A token at -inf is banned: it never leads.
_LOWEST = float(np.finfo(np.float32).min)


class Tokens(NamedTuple):
    """Some tokens of a row: ids, int64 [N], ascending, and their scores, float32 [N]."""

    ids: IntArray
    scores: FloatArray

    def at_least(self, bound: float) -> "Tokens":
        """Those whose scores are `bound` or more."""
        is_kept = self.scores >= bound
        return Tokens(self.ids[is_kept], self.scores[is_kept])


class Leaders:
    """The likeliest tokens of one row.

    Args:
        scores: float32 [vocab]; must not change.

    Attributes:
        scores: The same.
        peak: The highest; NaN if any is, and then nothing else may be asked.
    """

    __slots__ = ("scores", "peak", "_tops")

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores
        groups = len(scores) // _GROUP
        # Token t is in group t % groups; the last few tokens are in none.
        dealt = scores[: groups * _GROUP].reshape(_GROUP, groups)
        self._tops: FloatArray = np.maximum.reduce(dealt, axis=0)
        self.peak = float(np.maximum.reduce(self._tops, initial=-np.inf))
        if groups * _GROUP < len(scores):
            rest = np.maximum.reduce(scores[groups * _GROUP :])
            self.peak = float(np.maximum(self.peak, rest))

    def at_least(self, bound: float) -> Tokens:
        """The tokens whose scores are `bound` or more."""
        groups = len(self._tops)
        (found,) = (self._tops >= bound).nonzero()
        if 2 * len(found) >= groups:  # also when there are no groups
            (ids,) = (self.scores >= bound).nonzero()
            return Tokens(ids, self.scores[ids])
        ids = (_firsts(groups) + found).ravel()
        if groups * _GROUP < len(self.scores):
            ids = np.concatenate([ids, np.arange(groups * _GROUP, len(self.scores))])
        return Tokens(ids, self.scores.take(ids)).at_least(bound)

    def first(self, count: int) -> Tokens:
        """The `count` >= 1 likeliest tokens and those tied with the last of them.

        Fewer where all others are banned.
        """
        bound = _LOWEST
        if count <= len(self._tops):
            bound = max(bound, _highest(self._tops, count))
        tokens = self.at_least(bound)
        if len(tokens.ids) <= count:
            return tokens
        return tokens.at_least(_highest(tokens.scores, count))


def _highest(scores: FloatArray, count: int) -> float:
    """The `count`-th highest of some scores."""
    ordered = scores.copy()
    ordered.partition(len(scores) - count)
    return float(ordered[-count])


@functools.cache
def _firsts(groups: int) -> IntArray:
    """The least token id of each turn in which the tokens are dealt, int64 [_GROUP, 1]."""
    return np.arange(0, groups * _GROUP, groups)[:, None]
