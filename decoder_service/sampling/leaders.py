"""Finding a row's likeliest tokens without looking at every token more than once.

A partial sort of 150,000 scores takes ten times as long as one pass over them. So the tokens are
dealt into groups, and one pass finds the highest score of each. If `n` groups reach some score, so
do at least `n` tokens; and every token that reaches it lies in one of those groups.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Tokens of a group. They lie a stride apart, so that the pass is a maximum of whole vectors.
_GROUP = 32

# A token at -inf is banned: it never leads.
_LOWEST = float(np.finfo(np.float32).min)


class Leaders:
    """The likeliest tokens of one row.

    Args:
        scores: float32 [vocab] without NaN; must not change.

    Attributes:
        peak: The highest score.
    """

    __slots__ = ("peak", "_scores", "_tops")

    def __init__(self, scores: FloatArray) -> None:
        self._scores = scores
        groups = len(scores) // _GROUP
        # Token t is in group t % groups; the last few tokens are in none.
        dealt = scores[: groups * _GROUP].reshape(_GROUP, groups)
        self._tops: FloatArray = np.maximum.reduce(dealt, axis=0)
        rest = scores[groups * _GROUP :]
        self.peak = float(max(self._tops.max(initial=-np.inf), rest.max(initial=-np.inf)))

    def at_least(self, bound: float) -> IntArray:
        """Ids of the tokens whose scores are `bound` or more, ascending."""
        groups = len(self._tops)
        found = np.flatnonzero(self._tops >= bound)
        if 2 * len(found) >= groups:  # also when there are no groups
            return np.flatnonzero(self._scores >= bound)
        dealt = np.add.outer(np.arange(0, groups * _GROUP, groups), found).ravel()
        rest = np.arange(groups * _GROUP, len(self._scores))
        ids = np.concatenate([dealt, rest])
        kept: IntArray = ids[self._scores[ids] >= bound]
        return kept

    def first(self, count: int) -> IntArray:
        """Ids of the `count` >= 1 likeliest tokens and of those tied with the last, ascending.

        Fewer where all others are banned.
        """
        bound = _LOWEST
        if count <= len(self._tops):
            bound = max(bound, float(np.partition(self._tops, -count)[-count]))
        ids = self.at_least(bound)
        if len(ids) <= count:
            return ids
        scores = self._scores[ids]
        kept: IntArray = ids[scores >= np.partition(scores, -count)[-count]]
        return kept
