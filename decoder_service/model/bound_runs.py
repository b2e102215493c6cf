"""Runs of a graph of Tandem's operators that are bound once for each shape and kept."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import Segments
from decoder_service.model.sessions import Binding, GraphSession
from protos.bundle.manifest import Manifest

FloatArray = npt.NDArray[np.float32]

# Shapes whose bindings are kept; a chunk's length is free to change from step to step.
KEPT_SHAPES = 64


class Shape(NamedTuple):
    """What runs must have in common to share a binding."""

    rows: int
    logit_rows: int
    segments: int

    @classmethod
    def of(cls, batch: Sequence[Segments]) -> "Shape":
        """The shape of a batch's run."""
        return cls(
            sum(len(part.embeds) for part in batch),
            sum(len(part.logit_rows) for part in batch),
            sum(part.count for part in batch),
        )


class BoundRuns:
    """The runs used last, by shape.

    Args:
        session: A graph of Tandem's operators.
        manifest: Of its bundle; gives widths.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, manifest: Manifest, cache: KvCache) -> None:
        self._session = session
        self._cache = cache
        self._buffers = Buffers(manifest, cache.slot_count)
        self._runs: OrderedDict[Shape, BoundRun] = OrderedDict()

    def get(self, shape: Shape) -> "BoundRun":
        """The run of that shape; made if it is new."""
        run = self._runs.get(shape)
        if run is None:
            run = self._runs[shape] = BoundRun(self._session, self._buffers, self._cache, shape)
            if len(self._runs) > KEPT_SHAPES:
                self._runs.popitem(last=False)
        self._runs.move_to_end(shape)
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
    """One shape of run over the whole cache: bound once, then only what its arrays hold changes."""

    def __init__(
        self, session: GraphSession, buffers: Buffers, cache: KvCache, shape: Shape
    ) -> None:
        self._embeds, self._deepstack = buffers.rows(shape.rows)
        self._position_ids = np.zeros((3, shape.rows), np.int64)
        self._logit_indices = np.zeros(shape.logit_rows, np.int64)
        self._sequences = np.zeros((shape.segments, 3), np.int32)
        self._logits = buffers.logits(shape.logit_rows)
        self._nothing = np.zeros((1, 1, buffers.hidden_size), np.float32)
        self._has_deepstack: bool | None = None
        self._binding = Binding(session)
        self._binding.input("inputs_embeds", self._embeds[None])
        self._binding.input("position_ids", self._position_ids[:, None])
        self._binding.input("logit_indices", self._logit_indices)
        self._binding.input("sequences", self._sequences)
        self._binding.cache(cache.layers)
        self._binding.output("logits", self._logits)

    def fill(self, batch: Sequence[Segments]) -> None:
        """Takes a batch of its shape."""
        has_deepstack = any(part.deepstack is not None for part in batch)
        self._bind_deepstack(has_deepstack)
        row = wanted = first = 0
        for part in batch:
            rows, count, logit_rows = len(part.embeds), part.count, len(part.logit_rows)
            self._embeds[row : row + rows] = part.embeds
            self._position_ids[:, row : row + rows] = part.position_ids
            self._logit_indices[wanted : wanted + logit_rows] = part.logit_rows + row
            sequences = self._sequences[first : first + count]
            sequences[:, 0] = np.arange(part.slot, part.slot + count)
            sequences[:, 1] = rows // count
            sequences[:, 2] = part.past
            if part.as_decoded:  # the operator writes keys and values of all before it attends
                sequences[:, 0] = part.slot
                sequences[:, 2] += np.arange(rows, dtype=np.int32)
            if has_deepstack:
                values = 0 if part.deepstack is None else part.deepstack
                self._deepstack[:, row : row + rows] = values
            row, wanted, first = row + rows, wanted + logit_rows, first + count

    def _bind_deepstack(self, has_deepstack: bool) -> None:
        if self._has_deepstack == has_deepstack:
            return
        self._has_deepstack = has_deepstack
        for level, rows in enumerate(self._deepstack):
            bound = rows[None] if has_deepstack else self._nothing
            self._binding.input(f"deepstack_embeds.{level}", bound)

    def run(self) -> FloatArray:
        """See `batch.Bound.run`."""
        self._binding.run()
        return self._logits
