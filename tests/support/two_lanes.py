"""Drives a bundle's two-lane graph directly with onnxruntime, its caches bound in place."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protos.bundle.manifest import Bundle
from tests.support.graphs import GraphInputs, find_graph, open_session
from tests.support.oracle import Float32Array


class TwoLaneSession:
    """The two-lane graph over slots; slot [0, B) decode, any later slot takes the prefill lane.

    Args:
        bundle: Its folder.
        slots: Sequences that fit.
        context: Tokens that fit into each.
    """

    def __init__(
        self,
        bundle: Path,
        *,
        slots: int,
        context: int,
    ) -> None:
        opened = Bundle.open(bundle)
        self.manifest = opened.manifest
        graph = find_graph(opened, lanes=2)
        self.session = open_session(opened, graph)
        self._inputs = {entry.name for entry in self.session.get_inputs()}
        self._outputs = {entry.name for entry in self.session.get_outputs()}
        text = self.manifest.text
        shape = (slots, text.num_key_value_heads, context, text.head_dim)
        self.buffers = {
            f"{layer}.{side}": np.zeros(shape, np.float32)
            for layer in range(text.num_hidden_layers)
            for side in ("key", "value")
        }
        self.lengths = [0] * slots

    def run(
        self, slot: int, prefill: GraphInputs, decode: list[GraphInputs], rows: npt.ArrayLike
    ) -> Float32Array:
        """Runs a chunk of the sequence in `slot` beside one token of each of the first slots.

        Args:
            slot: Of the prefill lane, not below len(decode).
            prefill: The chunk, T tokens.
            decode: One token each of slots [0, B); B is at least 1.
            rows: Rows of T + B to compute logits of.

        Returns:
            Their logits, [R, vocab].
        """
        count, tokens = len(decode), len(prefill.embeds)
        both = [prefill, *decode]
        levels = [
            np.concatenate([part.deepstack[level] for part in both])
            for level in range(self.manifest.deepstack_level_count)
        ]
        past = np.array(self.lengths[:count])
        self.lengths[slot] += tokens
        self.lengths[:count] = [length + 1 for length in self.lengths[:count]]
        feeds: dict[str, npt.NDArray[Any]] = {
            "inputs_embeds": np.concatenate([part.embeds for part in both])[None],
            "position_ids": np.concatenate([part.position_ids for part in both], axis=1)[:, None],
            "logit_indices": np.asarray(rows, np.int64).reshape(-1),
            **{f"deepstack_embeds.{i}": level[None] for i, level in enumerate(levels)},
            "prefill.seqlens_k": np.array([self.lengths[slot] - 1], np.int32),
            "prefill.total_sequence_length": np.array(self.lengths[slot], np.int32),
            "decode.seqlens_k": past.astype(np.int32),
            "decode.total_sequence_length": np.array(past.max() + 1, np.int32),
        }
        logits = np.empty((feeds["logit_indices"].size, self.manifest.text.vocab_size), np.float32)
        self._run_bound(feeds, logits, {"prefill": slice(slot, slot + 1), "decode": slice(count)})
        return logits

    def _run_bound(
        self, feeds: dict[str, npt.NDArray[Any]], logits: Float32Array, lanes: dict[str, slice]
    ) -> None:
        binding = self.session.io_binding()
        for name, array in feeds.items():
            if name not in self._inputs:  # Tandem's operators need no longest length
                continue
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for lane, part in lanes.items():
            for name, buffer in self.buffers.items():
                held = buffer[part]
                place = ("cpu", 0, held.dtype, held.shape, held.ctypes.data)
                binding.bind_input(f"{lane}.past_key_values.{name}", *place)
                if f"{lane}.present.{name}" in self._outputs:
                    binding.bind_output(f"{lane}.present.{name}", *place)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        self.session.run_with_iobinding(binding)
