"""Runs steps through Tandem's kernels: rows of any number of sequences side by side in one run.

Every run names its sequences: slot, new tokens, tokens there already. So there is one graph, the
cache's buffers are bound whole and once, and nothing is laid out for one kind of step or another.
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from decoder_service.kv_cache import KvCache
from decoder_service.lanes import DecodeLane, LaneLogits, PrefillLane
from decoder_service.sessions import Binding, GraphSession
from protos.bundle import Bundle

FloatArray = npt.NDArray[np.float32]

# Shapes of runs whose bindings are kept; a chunk's length is free to change from step to step.
KEPT_SHAPES = 64


class FlatRunner:
    """`lanes.Runner` over a graph of Tandem's kernels.

    Args:
        session: From `sessions.open_graphs`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, bundle: Bundle, cache: KvCache) -> None:
        text = bundle.manifest.text
        self.session = session
        self.cache = cache
        self.level_count = bundle.manifest.deepstack_level_count
        self.hidden_size = text.hidden_size
        self._vocab_size = text.vocab_size
        # Shared by all shapes: what they hold is of use only until the next run.
        self._embeds = np.zeros((0, text.hidden_size), np.float32)
        self._deepstack = np.zeros((self.level_count, 0, text.hidden_size), np.float32)
        self._logits = np.empty((cache.slot_count, text.vocab_size), np.float32)
        self._shapes: OrderedDict[tuple[int, int, int], _Shape] = OrderedDict()

    def run(
        self,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        """See `lanes.Runner.run`."""
        tokens = 0 if prefill is None else len(prefill.embeds)
        wanted = 0 if prefill is None else len(prefill.logit_rows)
        count = 0 if decode is None else len(decode.embeds)
        chunks = int(prefill is not None)
        shape = self._shape(tokens + count, wanted + count, chunks + count)
        if prefill is not None:
            shape.embeds[:tokens] = prefill.embeds
            shape.position_ids[:, :tokens] = prefill.position_ids
            shape.logit_indices[:wanted] = prefill.logit_rows
            shape.sequences[0] = prefill.slot, tokens, prefill.past
        if decode is not None:
            shape.embeds[tokens:] = decode.embeds
            shape.position_ids[:, tokens:] = decode.position_ids
            shape.logit_indices[wanted:] = np.arange(tokens, tokens + count)
            shape.sequences[chunks:, 0] = np.arange(count)
            shape.sequences[chunks:, 1] = 1
            shape.sequences[chunks:, 2] = decode.past
        shape.bind_deepstack(None if prefill is None else prefill.deepstack)
        on_start()
        logits = shape.run()
        return LaneLogits(prefill=logits[:wanted], decode=logits[wanted:])

    def _shape(self, rows: int, logit_count: int, sequence_count: int) -> "_Shape":
        key = rows, logit_count, sequence_count
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = _Shape(self, *key)
            if len(self._shapes) > KEPT_SHAPES:
                self._shapes.popitem(last=False)
        self._shapes.move_to_end(key)
        return shape

    def rows(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Buffers of that many rows: embeddings [count, hidden], DeepStack [levels, count, ...]."""
        if count > len(self._embeds):
            self._embeds = np.zeros((count, self.hidden_size), np.float32)
            self._deepstack = np.zeros((self.level_count, count, self.hidden_size), np.float32)
        return self._embeds[:count], self._deepstack[:, :count]

    def logits(self, count: int) -> FloatArray:
        """A buffer for that many rows of logits."""
        if count > len(self._logits):
            self._logits = np.empty((count, self._vocab_size), np.float32)
        return self._logits[:count]


class _Shape:
    """One shape of run: bound once, then only what its arrays hold changes.

    Attributes:
        embeds: float32 [rows, hidden].
        position_ids: int64 [3, rows].
        logit_indices: int64 [R], rows whose logits `run` returns.
        sequences: int32 [N, 3], see `protos.bundle.DecoderGraph`.
    """

    def __init__(
        self, runner: FlatRunner, rows: int, logit_count: int, sequence_count: int
    ) -> None:
        self.embeds, self._deepstack = runner.rows(rows)
        self.position_ids = np.zeros((3, rows), np.int64)
        self.logit_indices = np.zeros(logit_count, np.int64)
        self.sequences = np.zeros((sequence_count, 3), np.int32)
        self._logits = runner.logits(logit_count)
        self._nothing = np.zeros((1, 1, runner.hidden_size), np.float32)
        self._has_deepstack: bool | None = None
        self._binding = Binding(runner.session)
        self._binding.input("inputs_embeds", self.embeds[None])
        self._binding.input("position_ids", self.position_ids[:, None])
        self._binding.input("logit_indices", self.logit_indices)
        self._binding.input("sequences", self.sequences)
        self._binding.cache("", runner.cache.layers)
        self._binding.output("logits", self._logits)

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
            self._binding.input(f"deepstack_embeds.{level}", bound)

    def run(self) -> FloatArray:
        """Runs the graph; the logits [R, vocab] hold until the next run."""
        self._binding.run()
        return self._logits
