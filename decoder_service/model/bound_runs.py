"""Runs of a graph that are bound once for each shape and kept, and the arrays they share."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from decoder_service.model.sessions import Binding, GraphSession
from protos.bundle.manifest import Manifest

FloatArray = npt.NDArray[np.float32]
Run = TypeVar("Run")

# Shapes whose bindings are kept; a chunk's length is free to change from step to step.
KEPT_SHAPES = 64


class KeptRuns(Generic[Run]):
    """The runs used last, by what tells their shapes apart."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Run]) -> Run:
        """The run of that shape; made if it is new."""
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = make()
            if len(self._runs) > KEPT_SHAPES:
                self._runs.popitem(last=False)
        self._runs.move_to_end(key)
        return run


class Buffers:
    """Arrays that all runs share: what they hold is of use only until the next run.

    Args:
        manifest: Of the bundle; gives widths.
        slot_count: Rows of logits to begin with.
    """

    def __init__(self, manifest: Manifest, slot_count: int) -> None:
        self.hidden_size = manifest.text.hidden_size
        self._vocab_size = manifest.text.vocab_size
        self._level_count = manifest.deepstack_level_count
        self._embeds = np.zeros((0, self.hidden_size), np.float32)
        self._deepstack = np.zeros((self._level_count, 0, self.hidden_size), np.float32)
        self._logits = np.empty((slot_count, self._vocab_size), np.float32)

    def rows(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Buffers of that many rows: embeddings [count, hidden], DeepStack [levels, count, ...]."""
        if count > len(self._embeds):
            self._embeds = np.zeros((count, self.hidden_size), np.float32)
            self._deepstack = np.zeros((self._level_count, count, self.hidden_size), np.float32)
        return self._embeds[:count], self._deepstack[:, :count]

    def logits(self, count: int) -> FloatArray:
        """A buffer for that many rows of logits."""
        if count > len(self._logits):
            self._logits = np.empty((count, self._vocab_size), np.float32)
        return self._logits[:count]


class BoundRun:
    """One shape of run: bound once, then only what its arrays hold changes.

    Attributes:
        embeds: float32 [rows, hidden].
        position_ids: int64 [3, rows].
        logit_indices: int64 [R], rows whose logits `run` returns.
    """

    def __init__(
        self, session: GraphSession, buffers: Buffers, rows: int, logit_count: int
    ) -> None:
        self.embeds, self._deepstack = buffers.rows(rows)
        self.position_ids = np.zeros((3, rows), np.int64)
        self.logit_indices = np.zeros(logit_count, np.int64)
        self._logits = buffers.logits(logit_count)
        self._nothing = np.zeros((1, 1, buffers.hidden_size), np.float32)
        self._has_deepstack: bool | None = None
        self.binding = Binding(session)
        self.binding.input("inputs_embeds", self.embeds[None])
        self.binding.input("position_ids", self.position_ids[:, None])
        self.binding.input("logit_indices", self.logit_indices)
        self.binding.output("logits", self._logits)

    def bind_deepstack(self, values: FloatArray | None) -> None:
        """Takes float32 [levels, T, hidden] for the first T rows, zeros for the others."""
        if values is not None:
            length = values.shape[1]
            self._deepstack[:, :length] = values
            self._deepstack[:, length:] = 0
        if self._has_deepstack == (values is not None):
            return
        self._has_deepstack = values is not None
        for level, rows in enumerate(self._deepstack):
            bound = self._nothing if values is None else rows[None]
            self.binding.input(f"deepstack_embeds.{level}", bound)

    def run(self, on_start: Callable[[], None]) -> FloatArray:
        """Runs the graph; the logits [R, vocab] hold until the next run."""
        on_start()
        self.binding.run()
        return self._logits
