"""Runs steps through ONNX Runtime's own kernels, one run of the graph after another.

`GroupQueryAttention` refuses several sequences of several tokens, so a prompt's chunk and the
decoding sequences' tokens cannot share a run. This is for processors without AVX2 and for
precisions that Tandem's operators do not multiply: it is right, and no faster than it must be.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache, LayerCache
from decoder_service.model.batch import Segments
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

    def bind(self, batch: Sequence[Segments]) -> "PortableRun":
        """See `batch.Runner.bind`."""
        logits = np.empty((sum(len(part.logit_rows) for part in batch), self._vocab_size), "f4")
        runs, first = list[Binding](), 0
        for part in batch:
            last = first + len(part.logit_rows)
            runs.append(self._bind(part, logits[first:last]))
            first = last
        return PortableRun(runs, logits)

    def _bind(self, part: Segments, logits: FloatArray) -> Binding:
        count = len(part.past)
        tokens = len(part.embeds) // count
        positions = np.empty((3, count * tokens), np.int64)
        positions[:] = part.position_ids
        lengths = part.past + np.int32(tokens)
        binding = Binding(self._session)
        binding.input("inputs_embeds", part.embeds.reshape(count, tokens, -1))
        binding.input("position_ids", positions.reshape(3, count, tokens))
        binding.input("logit_indices", part.logit_rows)
        binding.input("seqlens_k", lengths - np.int32(1))
        binding.input("total_sequence_length", lengths.max(keepdims=True).reshape(()))
        deepstack = self._no_deepstack if part.deepstack is None else part.deepstack
        for level, rows in enumerate(deepstack):
            binding.input(f"deepstack_embeds.{level}", rows[None])
        slots = slice(part.slot, part.slot + count)
        # Past and present are the same rows: keys and values are written in place, never copied.
        binding.cache([LayerCache(key[slots], value[slots]) for key, value in self._cache.layers])
        binding.output("logits", logits)
        return binding


class PortableRun:
    """Several runs of the graph that stand for one."""

    def __init__(self, runs: Sequence[Binding], logits: FloatArray) -> None:
        self._runs = runs
        self._logits = logits

    def run(self) -> FloatArray:
        """See `batch.Bound.run`."""
        for run in self._runs:
            run.run()
        return self._logits
