"""Runs steps through ONNX Runtime's own kernels, one graph run for each kind of rows.

`GroupQueryAttention` refuses several sequences of several tokens, so the prompt's chunk and the
decoding sequences' tokens run one after the other. This is for processors without AVX2 and for
precisions that Tandem's operators do not multiply: it is right, and no faster than it must be.

The cache is bound in place: rows of a slot buffer are both past and present, so no KV is copied.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache, LayerCache
from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane
from decoder_service.model.sessions import Binding, GraphSession
from protos.bundle.manifest import Bundle

FloatArray = npt.NDArray[np.float32]


class PortableRunner:
    """`batch.Runner` over a portable graph.

    Args:
        session: From `sessions.open_graph`.
        bundle: The bundle it was loaded from.
        cache: Slots it reads and writes.
    """

    def __init__(self, session: GraphSession, bundle: Bundle, cache: KvCache) -> None:
        self._session = session
        self._cache = cache
        self._vocab_size = bundle.manifest.text.vocab_size
        hidden_size = bundle.manifest.text.hidden_size
        level_count = bundle.manifest.deepstack_level_count
        self._no_deepstack = np.zeros((level_count, 1, hidden_size), np.float32)

    def run(
        self,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        """See `batch.Runner.run`."""
        on_start()
        found = [np.empty((0, self._vocab_size), np.float32)] * 2
        if prefill is not None:
            found[0] = self._run(
                slot=prefill.slot,
                past=np.array([prefill.past], np.int32),
                embeds=prefill.embeds,
                position_ids=prefill.position_ids,
                deepstack=prefill.deepstack,
                logit_rows=prefill.logit_rows,
            )
        if decode is not None:
            found[1] = self._run(
                slot=0,
                past=decode.past,
                embeds=decode.embeds,
                position_ids=np.tile(decode.position_ids, (3, 1)),
                deepstack=None,
                logit_rows=np.arange(len(decode.past)),
            )
        return LaneLogits(prefill=found[0], decode=found[1])

    def _run(
        self,
        *,
        slot: int,
        past: npt.NDArray[np.int32],
        embeds: FloatArray,
        position_ids: npt.NDArray[np.integer],
        deepstack: FloatArray | None,
        logit_rows: npt.NDArray[np.int64],
    ) -> FloatArray:
        """Runs as many tokens in each of the slots from `slot` on; logits of some rows."""
        count = len(past)
        tokens = len(embeds) // count
        lengths = past + np.int32(tokens)
        logits = np.empty((len(logit_rows), self._vocab_size), np.float32)
        binding = Binding(self._session)
        binding.input("inputs_embeds", embeds.reshape(count, tokens, -1))
        binding.input("position_ids", position_ids.astype(np.int64).reshape(3, count, tokens))
        binding.input("logit_indices", logit_rows)
        binding.input("seqlens_k", lengths - np.int32(1))
        binding.input("total_sequence_length", lengths.max(keepdims=True).reshape(()))
        for level, rows in enumerate(self._no_deepstack if deepstack is None else deepstack):
            binding.input(f"deepstack_embeds.{level}", rows[None])
        slots = slice(slot, slot + count)
        binding.cache([LayerCache(key[slots], value[slots]) for key, value in self._cache.layers])
        binding.output("logits", logits)
        binding.run()
        return logits
