"""Runs steps through ONNX Runtime's own kernels, which attend in two lanes.

The caches are bound in place: rows of a slot buffer are both past and present, so nothing is
copied between steps. The shapes of steps repeat, so what is bound for one is kept for the next of
the same shape.

A two-lane graph always runs both lanes. An empty one gets the last decoding sequence, or a scratch
row, which is one token of nobody in a cache of its own.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.kv_cache import KvCache, LayerCache
from decoder_service.lanes import DecodeLane, LaneLogits, PrefillLane
from decoder_service.sessions import LANES, Binding, GraphSession
from protos.bundle import Bundle

FloatArray = npt.NDArray[np.float32]

# Bindings kept; a chunk's length is free to change from step to step.
KEPT_STEPS = 64


class _Lane(NamedTuple):
    """One lane of a run: whose rows of the cache, and how many tokens are valid after it."""

    layers: Sequence[LayerCache]
    first: int  # slots [first, stop); the scratch row is slot -1
    stop: int
    lengths: npt.NDArray[np.int32] | int


class LaneRunner:
    """`lanes.Runner` over a two-lane graph.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, bundle: Bundle, cache: KvCache) -> None:
        manifest = bundle.manifest
        self.session = session
        self._cache = cache
        self.hidden_size = manifest.text.hidden_size
        self.vocab_size = manifest.text.vocab_size
        self.level_count = manifest.deepstack_level_count
        shape = (1, manifest.text.num_key_value_heads, 1, manifest.text.head_dim)
        scratch = LayerCache(np.zeros(shape, session.kv_dtype), np.zeros(shape, session.kv_dtype))
        self._scratch = _Lane([scratch] * manifest.text.num_hidden_layers, -1, 0, 1)
        # Shared by all steps: what they take and give holds only until the next run.
        self._embeds = np.zeros((0, self.hidden_size), np.float32)
        self._deepstack = np.zeros((self.level_count, 0, self.hidden_size), np.float32)
        self._logits = np.empty((cache.slot_count, self.vocab_size), np.float32)
        self._steps: OrderedDict[tuple[int, int, int], _Step] = OrderedDict()

    def run(
        self,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        """See `lanes.Runner.run`."""
        if prefill is None:
            assert decode is not None, "a run of nothing"
            return LaneLogits(prefill=self._logits[:0], decode=self._decode(decode, on_start))
        length, wanted = len(prefill.embeds), len(prefill.logit_rows)
        count = 0 if decode is None else len(decode.embeds)
        step = self._step(length + max(1, count), wanted + count, max(1, count))
        _fill(step, prefill)
        step.logit_indices[:wanted] = prefill.logit_rows
        step.logit_indices[wanted:] = np.arange(length, length + count)
        step.bind_lane(0, self._lane_of(prefill))
        if decode is None:
            step.embeds[length] = prefill.embeds[0]  # any number but NaN
            step.position_ids[:, length] = 0
            step.bind_lane(1, self._scratch)
        else:
            step.embeds[length:] = decode.embeds
            step.position_ids[:, length:] = decode.position_ids
            step.bind_lane(1, _Lane(self._cache.layers, 0, count, decode.past + 1))
        logits = step.run(on_start)
        return LaneLogits(prefill=logits[:wanted], decode=logits[wanted:])

    def _decode(self, lane: DecodeLane, on_start: Callable[[], None]) -> FloatArray:
        """The last sequence takes the prefill lane, so its row is the first."""
        last = len(lane.embeds) - 1
        step = self._step(1 + max(1, last), 1 + last, max(1, last))
        step.embeds[0], step.position_ids[:, 0] = lane.embeds[last], lane.position_ids[last]
        step.logit_indices[:last], step.logit_indices[last] = np.arange(1, 1 + last), 0
        step.bind_deepstack(None)
        step.bind_lane(0, _Lane(self._cache.layers, last, last + 1, lane.past[last:] + 1))
        if last:
            step.embeds[1:], step.position_ids[:, 1:] = lane.embeds[:last], lane.position_ids[:last]
            step.bind_lane(1, _Lane(self._cache.layers, 0, last, lane.past[:last] + 1))
        else:
            step.embeds[1], step.position_ids[:, 1] = lane.embeds[0], 0
            step.bind_lane(1, self._scratch)
        return step.run(on_start)

    def _lane_of(self, lane: PrefillLane) -> _Lane:
        length = lane.past + len(lane.embeds)
        return _Lane(self._cache.layers, lane.slot, lane.slot + 1, length)

    def _step(self, rows: int, logit_count: int, decode_count: int) -> "_Step":
        # With the rows of the decode lane: the same rows in all are divided in several ways.
        key = rows, logit_count, decode_count
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = _Step(self, rows, logit_count)
            if len(self._steps) > KEPT_STEPS:
                self._steps.popitem(last=False)
        self._steps.move_to_end(key)
        return step

    def rows(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Buffers of that many rows: embeddings [count, hidden], DeepStack [levels, count, ...]."""
        if count > len(self._embeds):
            self._embeds = np.zeros((count, self.hidden_size), np.float32)
            self._deepstack = np.zeros((self.level_count, count, self.hidden_size), np.float32)
        return self._embeds[:count], self._deepstack[:, :count]

    def logits(self, count: int) -> FloatArray:
        """A buffer for that many rows of logits."""
        if count > len(self._logits):
            self._logits = np.empty((count, self.vocab_size), np.float32)
        return self._logits[:count]


def _fill(step: "_Step", lane: PrefillLane) -> None:
    length = len(lane.embeds)
    step.embeds[:length] = lane.embeds
    step.position_ids[:, :length] = lane.position_ids
    step.bind_deepstack(lane.deepstack)


class _Step:
    """One shape of run: bound once, then only what its arrays hold changes.

    Attributes:
        embeds: float32 [rows, hidden].
        position_ids: int64 [3, rows].
        logit_indices: int64 [R], rows whose logits `run` returns.
    """

    def __init__(self, runner: LaneRunner, rows: int, logit_count: int) -> None:
        self._lane_names = LANES[2]
        self._binding = Binding(runner.session)
        self.embeds, self._deepstack = runner.rows(rows)
        self.position_ids = np.zeros((3, rows), np.int64)
        self.logit_indices = np.zeros(logit_count, np.int64)
        self._logits = runner.logits(logit_count)
        self._nothing = np.zeros((1, 1, runner.hidden_size), np.float32)
        self._has_deepstack: bool | None = None
        self._lanes: dict[int, tuple[int, int]] = {}
        self._seqlens: dict[int, npt.NDArray[np.int32]] = {}
        self._totals: dict[int, npt.NDArray[np.int32]] = {}
        self._binding.input("inputs_embeds", self.embeds[None])
        self._binding.input("position_ids", self.position_ids[:, None])
        self._binding.input("logit_indices", self.logit_indices)
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

    def bind_lane(self, index: int, lane: _Lane) -> None:
        """Takes the slots a lane reads and writes, and the valid lengths after the run."""
        name, slots = self._lane_names[index], (lane.first, lane.stop)
        if self._lanes.get(index) != slots:
            self._lanes[index] = slots
            rows = slice(None) if lane.first < 0 else slice(*slots)
            self._binding.cache(name, [LayerCache(k[rows], v[rows]) for k, v in lane.layers])
        if index not in self._seqlens:
            count = lane.stop - lane.first
            self._seqlens[index], self._totals[index] = np.zeros(count, np.int32), _scalar()
            self._binding.input(f"{name}seqlens_k", self._seqlens[index])
            self._binding.input(f"{name}total_sequence_length", self._totals[index])
        self._seqlens[index][:] = np.subtract(lane.lengths, 1)
        self._totals[index][...] = np.max(lane.lengths)

    def run(self, on_start: Callable[[], None]) -> FloatArray:
        """Runs the graph; the logits [R, vocab] hold until the next run."""
        on_start()
        self._binding.run()
        return self._logits


def _scalar() -> npt.NDArray[np.int32]:
    return np.zeros((), np.int32)
