"""Drafting ahead by prompt lookup: what followed the last tokens when they came before.

A draft costs rows of one run and changes no token: each row's token is chosen as if it had been
computed alone, and the first that differs from the draft ends it. So a draft is made only where
it pays: while one sequence decodes, which leaves the rows of a run free, and as long as the
drafts of this sequence come true.
"""

import numpy as np
import numpy.typing as npt

from decoder_service.sequence.sequence import Sequence

IntArray = npt.NDArray[np.int32]

# Last tokens that must have come before, longest first: one alone says too little.
_NGRAMS = (4, 3, 2)
# Weight of the newest measurement and of the newest draft.
_WEIGHT = 0.25
# Most tokens to go without a draft after drafts that have failed.
_LONGEST_PAUSE = 64


def lookup(history: IntArray, most: int) -> IntArray:
    """What followed the last occurrence of the history's last tokens.

    Where that reaches the end of the history, it goes on as it began: text that repeats itself
    every few tokens would be drafted a few tokens at a time.

    Args:
        history: Token ids, int32 [H].
        most: Most tokens to give.

    Returns:
        int32 [most], or [0].
    """
    for count in _NGRAMS:
        end = len(history) - count  # the last tokens themselves are no earlier occurrence
        if end < 1:
            continue
        found = history[:end] == history[end]
        for place in range(1, count):
            found &= history[place : end + place] == history[end + place]
        if found.any():
            begin = end - 1 - int(found[::-1].argmax()) + count
            return np.resize(history[begin : begin + most], most)
    return history[:0]


class _Record:
    """How drafts for one sequence have done."""

    __slots__ = ("length", "pause", "failures", "accepted")

    def __init__(self, length: int) -> None:
        self.length = length  # of the next draft
        self.pause = 0  # tokens to go without one
        self.failures = 0  # in a row
        self.accepted = float(length)  # of a draft, a running mean; trusting at first


class Speculation:
    """Decides what to draft, from what drafts have cost and brought.

    Args:
        most_tokens: Longest draft; 0 for none at all.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._seconds: dict[int, float] = {}  # rows of a run -> its time
        self._sequence: Sequence | None = None
        self._record = _Record(1)

    def draft(self, sequence: Sequence, room: int) -> IntArray:
        """The draft for the next run; often empty.

        Args:
            sequence: The only one that decodes.
            room: Most tokens that could be of use.
        """
        most = min(self._most_tokens, room)
        if most < 1 or sequence.request.constraint is not None:
            return sequence.token_ids[:0]
        record = self._record_of(sequence)
        if record.pause > 0:
            record.pause -= 1
            return sequence.token_ids[:0]
        history = sequence.token_ids[: sequence.history_length]
        tokens = lookup(history, min(most, record.length))
        if len(tokens) and not self._pays(1 + len(tokens), record.accepted):
            record.pause = _LONGEST_PAUSE
            # Judged afresh after the pause: the first run of so many rows takes longer than the
            # later ones, and without another nobody would find out.
            record.accepted = float(self._most_tokens)
            del self._seconds[1 + len(tokens)]
            return tokens[:0]
        return tokens

    def settle(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Takes note of how a draft did."""
        record = self._record_of(sequence)
        record.accepted += _WEIGHT * (accepted - record.accepted)
        if accepted == drafted:
            record.length = min(self._most_tokens, 2 * record.length)
        else:
            record.length = max(1, accepted)
        record.failures = record.failures + 1 if accepted == 0 else 0
        if record.failures:
            record.pause = min(_LONGEST_PAUSE, 2**record.failures)

    def observe(self, rows: int, seconds: float) -> None:
        """Takes note of a run with one sequence: `rows` tokens of it."""
        old = self._seconds.get(rows, seconds)
        self._seconds[rows] = old + _WEIGHT * (seconds - old)

    def _pays(self, rows: int, accepted: float) -> bool:
        """Whether a run of some rows gives more tokens per second than single ones."""
        single, several = self._seconds.get(1), self._seconds.get(rows)
        if single is None or several is None:
            return True
        return several < single * (1 + min(accepted, rows - 1))

    def _record_of(self, sequence: Sequence) -> _Record:
        # One sequence at a time: when another has come between, judging it afresh costs little.
        if self._sequence is not sequence:
            self._sequence = sequence
            self._record = _Record(min(4, self._most_tokens))
        return self._record
