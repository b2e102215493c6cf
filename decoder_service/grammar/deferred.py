"""A constraint that begins behind a token: the answer is held to a grammar, the thought is free."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decoder_service.grammar.state import GrammarState


class Deferred:
    """Leaves an output free until a token comes, and holds the rest to a grammar.

    The output cannot end before that, so that no thought passes for a whole answer.
    """

    def __init__(self, state: GrammarState, *, after: int, ends: Sequence[int]) -> None:
        """Waits for the first `after` token; `ends` are the end-of-sequence tokens."""
        self._state = state
        self._after = after
        self._ends = list(ends)
        self._has_begun = False

    def mask(self, scores: npt.NDArray[np.float32]) -> None:
        """Sets the scores of tokens that may not follow to -inf; see `GrammarState.mask`."""
        if self._has_begun:
            self._state.mask(scores)
        else:
            scores[self._ends] = -np.inf

    def accept(self, token_id: int) -> None:
        """Takes the token that was chosen."""
        if self._has_begun:
            self._state.accept(token_id)
        else:
            self._has_begun = token_id == self._after
