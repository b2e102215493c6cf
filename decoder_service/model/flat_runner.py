"""Runs steps through Tandem's kernels: rows of any number of sequences side by side in one run.

Every run names its sequences: slot, new tokens, tokens there already. So there is one graph, the
cache's buffers are bound whole and once, and nothing is laid out for one kind of step or another.
"""

from collections.abc import Callable

import numpy as np

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane
from decoder_service.model.bound_runs import BoundRun, Buffers, KeptRuns
from decoder_service.model.sessions import GraphSession
from protos.bundle.manifest import Bundle


class FlatRunner:
    """`lanes.Runner` over a graph of Tandem's kernels.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, bundle: Bundle, cache: KvCache) -> None:
        self._session = session
        self._cache = cache
        self._buffers = Buffers(bundle.manifest, cache.slot_count)
        self._runs = KeptRuns[_FlatRun]()

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
        key = tokens + count, wanted + count, chunks + count
        run = self._runs.get(key, lambda: _FlatRun(self._session, self._cache, self._buffers, *key))
        if prefill is not None:
            run.embeds[:tokens] = prefill.embeds
            run.position_ids[:, :tokens] = prefill.position_ids
            run.logit_indices[:wanted] = prefill.logit_rows
            run.sequences[0] = prefill.slot, tokens, prefill.past
        if decode is not None:
            run.embeds[tokens:] = decode.embeds
            run.position_ids[:, tokens:] = decode.position_ids
            run.logit_indices[wanted:] = np.arange(tokens, tokens + count)
            run.sequences[chunks:, 0] = np.arange(count)
            run.sequences[chunks:, 1] = 1
            run.sequences[chunks:, 2] = decode.past
        run.bind_deepstack(None if prefill is None else prefill.deepstack)
        logits = run.run(on_start)
        return LaneLogits(prefill=logits[:wanted], decode=logits[wanted:])


class _FlatRun(BoundRun):
    """One shape of run over the whole cache.

    Attributes:
        sequences: int32 [N, 3], see `protos.bundle.manifest.DecoderGraph`.
    """

    def __init__(
        self,
        session: GraphSession,
        cache: KvCache,
        buffers: Buffers,
        rows: int,
        logit_count: int,
        sequence_count: int,
    ) -> None:
        super().__init__(session, buffers, rows, logit_count)
        self.sequences = np.zeros((sequence_count, 3), np.int32)
        self.binding.input("sequences", self.sequences)
        self.binding.cache(cache.layers)
