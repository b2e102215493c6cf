"""Drives a bundle's ONNX graphs directly with onnxruntime, without any of Tandem's services."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from protos.bundle.manifest import Bundle, DecoderGraph
from tests.support.oracle import Float32Array, Int64Array, Oracle, Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphInputs:
    """A prompt as the graph takes it."""

    embeds: Float32Array  # [S, hidden], features scattered over the placeholders
    position_ids: Int64Array  # [3, S]
    deepstack: tuple[Float32Array, ...]  # [S, hidden] per level, zeros at text


def open_session(bundle: Bundle, graph: DecoderGraph) -> onnxruntime.InferenceSession:
    """A graph in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        bundle.path / graph.file, options, providers=["CPUExecutionProvider"]
    )


class GraphSession:
    """The portable graph with a key/value cache that grows by concatenation, for one sequence."""

    def __init__(self, bundle: Path) -> None:
        opened = Bundle.open(bundle)
        self.manifest = opened.manifest
        self.session = open_session(opened, self.manifest.graph)
        self.table = _read_table(opened)
        self.reset()

    def reset(self) -> None:
        """Empties the cache."""
        text = self.manifest.text
        empty = np.zeros((1, text.num_key_value_heads, 0, text.head_dim), np.float32)
        self._cache = {
            f"past_key_values.{layer}.{side}": empty
            for layer in range(text.num_hidden_layers)
            for side in ("key", "value")
        }

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._cache["past_key_values.0.key"].shape[2])

    def run(self, inputs: GraphInputs, rows: npt.ArrayLike) -> Float32Array:
        """Runs the tokens after those in the cache; returns the logits of `rows`, [R, vocab]."""
        tokens = len(inputs.embeds)
        feeds = {
            "inputs_embeds": inputs.embeds[None],
            "position_ids": inputs.position_ids[:, None],
            "seqlens_k": np.array([self.length + tokens - 1], np.int32),
            "total_sequence_length": np.array(self.length + tokens, np.int32),
            "logit_indices": np.asarray(rows, np.int64).reshape(-1),
            **{f"deepstack_embeds.{i}": level[None] for i, level in enumerate(inputs.deepstack)},
            **self._cache,
        }
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, feeds), strict=True))
        self._cache = {
            f"past_key_values.{name.removeprefix('present.')}": value
            for name, value in outputs.items()
            if name != "logits"
        }
        logits: Float32Array = outputs["logits"]
        return logits

    def decode_step(self, token: int, position: int) -> Float32Array:
        """Runs one generated token; returns its logits, [vocab]."""
        hidden = self.manifest.text.hidden_size
        zeros = np.zeros((1, hidden), np.float32)
        step = GraphInputs(
            embeds=self.table[[token]],
            position_ids=np.full((3, 1), position, np.int64),
            deepstack=(zeros,) * self.manifest.deepstack_level_count,
        )
        row: Float32Array = self.run(step, [0])[0]
        return row

    def inputs(self, oracle: Oracle, prepared: Prepared) -> GraphInputs:
        """Embeds a prompt with the oracle's image features."""
        ids = prepared.input_ids
        embeds = self.table[ids]
        levels = [np.zeros_like(embeds) for _ in range(self.manifest.deepstack_level_count)]
        if prepared.pixel_values is not None and prepared.image_grid_thw is not None:
            features = oracle.features(prepared.pixel_values, prepared.image_grid_thw)
            visual = prepared.mm_token_type_ids != 0
            embeds[visual] = features.embeddings
            for level, values in zip(levels, features.deepstack, strict=True):
                level[visual] = values
        return GraphInputs(
            embeds=embeds, position_ids=prepared.position_ids, deepstack=tuple(levels)
        )


def part(inputs: GraphInputs, begin: int, end: int) -> GraphInputs:
    """The tokens from `begin` to `end`."""
    return GraphInputs(
        embeds=inputs.embeds[begin:end],
        position_ids=inputs.position_ids[:, begin:end],
        deepstack=tuple(level[begin:end] for level in inputs.deepstack),
    )


def _read_table(bundle: Bundle) -> Float32Array:
    manifest = bundle.manifest
    data = bytearray((bundle.path / manifest.embedding_table.file).read_bytes())
    raw = torch.frombuffer(data, dtype=getattr(torch, manifest.embedding_table.dtype))
    shape = (manifest.text.vocab_size, manifest.text.hidden_size)
    table: Float32Array = raw.reshape(shape).to(torch.float32).numpy()
    return table
