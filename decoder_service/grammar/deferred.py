"""A constraint of a part of the output: behind a thought, or from where a tool is called."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decoder_service.grammar.state import GrammarState


class Deferred:
    """Leaves an output free until its constraint begins, and holds the rest to a grammar.

    Behind a token: the output cannot end before it, so that no thought passes for a whole answer.
    From a token, which is the grammar's first: the output may as well end without it.
    """

    def __init__(
        self,
        state: GrammarState,
        *,
        after: int | None = None,
        begin: int | None = None,
        ends: Sequence[int],
    ) -> None:
        """Waits for the first `after` token, if any, and then for the first `begin` one, if any.

        Args:
            state: At the grammar's beginning.
            after: The constraint concerns what follows it.
            begin: The constraint begins with it.
            ends: The end-of-sequence tokens.
        """
        self._state = state
        self._after = after
        self._begin = begin
        self._ends = list(ends)

    def mask(self, scores: npt.NDArray[np.float32]) -> None:
        """Sets the scores of tokens that may not follow to -inf; see `GrammarState.mask`."""
        if self._after is not None:
            scores[self._ends] = -np.inf
        elif self._begin is None:
            self._state.mask(scores)

    async def resume(self, token_ids: Sequence[int]) -> None:
        """Takes the beginning of an output that was chosen before; see `GrammarState.resume`."""
        rest = list(token_ids)
        if self._after in rest:
            rest, self._after = rest[rest.index(self._after) + 1 :], None
        if self._after is None and self._begin in rest:
            rest, self._begin = rest[rest.index(self._begin) :], None
        if self._after is None and self._begin is None:
            await self._state.resume(rest)

    def accept(self, token_id: int) -> None:
        """Takes the token that was chosen."""
        if self._after is not None:
            if token_id == self._after:
                self._after = None
        elif self._begin is None:
            self._state.accept(token_id)
        elif token_id == self._begin:
            self._begin = None
            self._state.accept(token_id)
