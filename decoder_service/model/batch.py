"""What one run of the model takes: rows of new tokens, and the slots whose KV they continue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """T new tokens in each of N neighbouring slots; N or T is 1.

    A chunk of a prompt and a draft to verify are T tokens of one sequence, a decode step is one
    token of each of N. Rows are the segments' tokens one after another, N * T in all.

    Attributes:
        slot: The first segment's; the others' follow it without a gap.
        past: int32 [N], tokens of each whose KV is there already.
        embeds: float32 [N * T, hidden].
        position_ids: Integers [3, N * T]; or [N * T], the same on all three axes.
        deepstack: float32 [levels, N * T, hidden]; None for text.
        logit_rows: int64 [R], the rows whose logits are wanted, ascending; may be empty.
        as_decoded: Whether T tokens of one sequence are its output, drafted or computed again, and
            are to come out to the last bit as if each was decoded, where the operators can do it.
    """

    slot: int
    past: npt.NDArray[np.int32]
    embeds: FloatArray
    position_ids: npt.NDArray[np.integer]
    deepstack: FloatArray | None = None
    logit_rows: npt.NDArray[np.int64]
    as_decoded: bool = False

    @property
    def count(self) -> int:
        """Segments that our attention is told of: it rounds one token's sums in another order."""
        return len(self.embeds) if self.as_decoded else len(self.past)


class Bound(Protocol):
    """A run that is ready."""

    def run(self) -> FloatArray:
        """Computes KV and logits; may be repeated, since KV is written to the same places again.

        Returns:
            The wanted rows' logits in the batch's order, float32 [R of all, vocab]. They may lie
            in a buffer of the runner: they hold until its next run.
        """


class Runner(Protocol):
    """Runs the model over the slots of one KV cache."""

    def bind(self, batch: Sequence[Segments]) -> Bound:
        """Makes a run ready, which is the next one or never runs.

        Args:
            batch: At least one; no slot twice.
        """
