"""Keeps an output from ending before it has its least number of tokens."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from decoder_service.sampling.sampler import Mask


class Unending:
    """Bans the tokens that end an output, but where a form allows nothing else: it is complete.

    Args:
        ends: Ids of these tokens, at least one.
        form: What the output is held to; None for anything.
    """

    def __init__(self, ends: Collection[int], form: Mask | None) -> None:
        self._ends = list(ends)
        self._form = form

    def mask(self, scores: npt.NDArray[np.float32]) -> None:
        """Sets the scores of banned tokens to -inf; float32 [vocab], changed in place."""
        if self._form is not None:
            self._form.mask(scores)
        kept = scores[self._ends]
        scores[self._ends] = -np.inf
        if scores.max() == -np.inf:
            scores[self._ends] = kept
