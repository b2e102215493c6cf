"""Runs steps through ONNX Runtime's own kernels, which attend in two lanes.

The caches are bound in place: rows of a slot buffer are both past and present, so nothing is
copied between steps. The shapes of steps repeat, so what is bound for one is kept for the next of
the same shape.

A two-lane graph always runs both lanes. An empty one gets the last decoding sequence, or a scratch
row, which is one token of nobody in a cache of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache, LayerCache
from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane
from decoder_service.model.bound_runs import BoundRun, Buffers, KeptRuns
from decoder_service.model.sessions import LANES, GraphSession
from protos.bundle.manifest import Bundle

FloatArray = npt.NDArray[np.float32]


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
        shape = (1, manifest.text.num_key_value_heads, 1, manifest.text.head_dim)
        scratch = LayerCache(np.zeros(shape, session.kv_dtype), np.zeros(shape, session.kv_dtype))
        self._scratch = _Lane([scratch] * manifest.text.num_hidden_layers, -1, 0, 1)
        self._buffers = Buffers(manifest, cache.slot_count)
        self._steps = KeptRuns[_Step]()

    def run(
        self,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        """See `lanes.Runner.run`."""
        if prefill is None:
            assert decode is not None, "a run of nothing"
            return LaneLogits(
                prefill=self._buffers.logits(0), decode=self._decode(decode, on_start)
            )
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
        return self._steps.get(
            (rows, logit_count, decode_count),
            lambda: _Step(self.session, self._buffers, rows, logit_count),
        )


def _fill(step: "_Step", lane: PrefillLane) -> None:
    length = len(lane.embeds)
    step.embeds[:length] = lane.embeds
    step.position_ids[:, :length] = lane.position_ids
    step.bind_deepstack(lane.deepstack)


class _Step(BoundRun):
    """One shape of run over two lanes."""

    def __init__(
        self, session: GraphSession, buffers: Buffers, rows: int, logit_count: int
    ) -> None:
        super().__init__(session, buffers, rows, logit_count)
        self._lane_names = LANES[2]
        self._lanes: dict[int, tuple[int, int]] = {}
        self._seqlens: dict[int, npt.NDArray[np.int32]] = {}
        self._totals: dict[int, npt.NDArray[np.int32]] = {}

    def bind_lane(self, index: int, lane: _Lane) -> None:
        """Takes the slots a lane reads and writes, and the valid lengths after the run."""
        name, slots = self._lane_names[index], (lane.first, lane.stop)
        if self._lanes.get(index) != slots:
            self._lanes[index] = slots
            rows = slice(None) if lane.first < 0 else slice(*slots)
            self.binding.cache(name, [LayerCache(k[rows], v[rows]) for k, v in lane.layers])
        if index not in self._seqlens:
            count = lane.stop - lane.first
            self._seqlens[index], self._totals[index] = np.zeros(count, np.int32), _scalar()
            self.binding.input(f"{name}seqlens_k", self._seqlens[index])
            self.binding.input(f"{name}total_sequence_length", self._totals[index])
        self._seqlens[index][:] = np.subtract(lane.lengths, 1)
        self._totals[index][...] = np.max(lane.lengths)


def _scalar() -> npt.NDArray[np.int32]:
    return np.zeros((), np.int32)
