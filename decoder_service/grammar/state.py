"""One sequence's state in a grammar.

A sequence's matcher belongs to a thread of the mask pool while a mask is computed, which is
while the model runs: `accept` hands a token over and returns, `mask` waits for what came of it.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor, Future

import numpy as np
import numpy.typing as npt

from decoder_service.grammar.grammar import CompiledGrammar, Words
from protos.wire.errors import InvalidRequest

FloatArray = npt.NDArray[np.float32]


class GrammarState:
    """Where a sequence is in its grammar; used by one thread at a time."""

    def __init__(self, compiled: CompiledGrammar, pool: Executor) -> None:
        self._compiled = compiled
        self._pool = pool
        self._matcher = compiled.matcher()
        self._banned: Words = compiled.first_banned
        self._pending: Future[Words] | None = None
        self._accepted_count = 0

    def mask(self, scores: FloatArray) -> None:
        """Sets the scores of tokens that may not follow to -inf; may be repeated.

        Args:
            scores: float32 [vocab], changed in place.

        Raises:
            InvalidRequest: INVALID_SCHEMA, the grammar leads nowhere or became too complex;
                only this sequence fails.
        """
        if self._pending is not None:
            self._banned = self._pending.result()
            self._pending = None
        self._compiled.vocabulary.ban(scores, self._banned)

    def accept(self, token_id: int) -> None:
        """Takes the token that was chosen; the next mask is computed meanwhile."""
        assert self._pending is None, "a token was accepted before its place was masked"
        self._accepted_count += 1
        self._pending = self._pool.submit(self._advance, token_id)

    async def resume(self, token_ids: Sequence[int]) -> None:
        """Takes the beginning of an output that was chosen before, at the grammar's beginning.

        Raises:
            InvalidRequest: INVALID_SCHEMA as `mask`; another reason, the grammar never allowed it.
        """
        if token_ids:
            self._accepted_count = len(token_ids)
            advance = self._pool.submit(self._advance_over, token_ids)
            self._banned = await asyncio.wrap_future(advance)

    def _advance_over(self, token_ids: Sequence[int]) -> Words:
        """Moves over many tokens and computes what may not follow; on a thread of the pool."""
        taken = self._matcher.try_consume_tokens(list(token_ids))
        if taken < len(token_ids):
            raise InvalidRequest(
                f"output_ids are not what the constraint allows, from token {taken} of the part"
                " that it concerns",
                param="output_ids",
            )
        return self._banned_now()

    def _advance(self, token_id: int) -> Words:
        """Moves on and computes what may not follow; on a thread of the pool."""
        self._matcher.consume_token(token_id)
        return self._banned_now()

    def _banned_now(self) -> Words:
        banned = self._compiled.banned(self._matcher)
        if self._matcher.is_error() or self._compiled.vocabulary.bans_all(banned):
            self._compiled.is_worn = True
            raise self._compiled.grammar.refusal(
                f"leads nowhere, or became too complex, after {self._accepted_count} tokens"
            )
        return banned
