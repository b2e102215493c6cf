"""What one run of the model takes and gives: a prefill lane and a decode lane."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillLane:
    """T >= 1 tokens of one sequence: a chunk of its prompt, or a draft to verify.

    Attributes:
        slot: The sequence's slot; not one of the decode lane's.
        past: Tokens whose KV is there already.
        embeds: float32 [T, hidden].
        position_ids: int32 [3, T].
        deepstack: float32 [levels, T, hidden]; None for text.
        logit_rows: int64 [R], the rows of T whose logits are wanted, ascending; may be empty.
    """

    slot: int
    past: int
    embeds: FloatArray
    position_ids: npt.NDArray[np.int32]
    deepstack: FloatArray | None
    logit_rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLane:
    """One token in each of the slots 0 to B - 1, B >= 1.

    Attributes:
        embeds: float32 [B, hidden].
        position_ids: int64 [B], the same on all three axes.
        past: int32 [B], tokens whose KV is there already.
    """

    embeds: FloatArray
    position_ids: npt.NDArray[np.int64]
    past: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLogits:
    """Logits of a run. They may lie in buffers of the runner: they hold until its next run.

    Attributes:
        prefill: float32 [R, vocab]; no rows without a prefill lane.
        decode: float32 [B, vocab]; no rows without a decode lane.
    """

    prefill: FloatArray
    decode: FloatArray


class Runner(Protocol):
    """Runs the model over the slots of one KV cache.

    A run may be repeated: KV it has written is written again to the same places.
    """

    def run(
        self,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        """Computes KV and logits of the tokens of one lane or of both.

        Args:
            prefill: One lane.
            decode: The other.
            on_start: Called when all is ready, right before the model computes.
        """
