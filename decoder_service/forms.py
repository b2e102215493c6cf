"""Which weights a run uses: the narrow form where memory bounds it, the wide one where products do.

A bundle holds the model twice. The narrow form (INT4) is read fastest, and reading weights is all
that a run of few rows costs. The wide form (INT8) has twice the bytes and multiplies several times
faster, which wins as soon as one read serves enough rows.
"""

from dataclasses import dataclass
from enum import Enum


class Form(Enum):
    """A loaded graph: single-lane with narrow weights, or two-lane with wide weights."""

    NARROW = "narrow"
    WIDE = "wide"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormPolicy:
    """From how many rows on a run is faster with wide weights; measured, see tests/bench.

    Attributes:
        decode_rows: Of a decode step.
        prefill_rows: Of a chunk or a draft without decode rows.
    """

    decode_rows: int = 14
    prefill_rows: int = 14

    def choose(self, *, prefill_rows: int, decode_rows: int) -> Form:
        """The form for a run of that many rows; both lanes at once need the two-lane graph."""
        if prefill_rows and decode_rows:
            return Form.WIDE
        if prefill_rows:
            return Form.WIDE if prefill_rows >= self.prefill_rows else Form.NARROW
        return Form.WIDE if decode_rows >= self.decode_rows else Form.NARROW
