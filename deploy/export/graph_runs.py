"""Runs prompts through a graph in each of the ways the decoder does, to compare what comes out.

Integer arithmetic rounds differently in each: products of one row are not those of several.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.export.checkpoint.checkpoint import Checkpoint
from kernels import library
from protos.bundle.manifest import DecoderGraph

FloatArray = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[Any]]
# Gives logits [prompts, tokens, vocab] of embedded prompts [prompts, tokens, hidden].
Run = Callable[["GraphRunner", FloatArray], FloatArray]


class GraphRunner:
    """One graph in ONNX Runtime.

    Args:
        file: Where it lies.
        checkpoint: What it was made of.
        graph: What the manifest says of it; None for a plain float32 graph.
    """

    def __init__(
        self, file: Path, checkpoint: Checkpoint, graph: DecoderGraph | None = None
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        if graph is not None and graph.kernels == "tandem":
            options.register_custom_ops_library(str(library.path()))
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
        self._text = checkpoint.text
        self._levels = checkpoint.deepstack_levels
        self._kv_dtype = np.dtype(np.float32 if graph is None else graph.kv_dtype)
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._names = [output.name for output in self._session.get_outputs()]

    def cache(self, length: int) -> Feeds:
        """Empty keys and values of a sequence of at most `length` tokens."""
        text = self._text
        shape = (1, text.num_key_value_heads, length, text.head_dim)
        return {
            f"past_key_values.{layer}.{side}": np.zeros(shape, self._kv_dtype)
            for layer in range(text.num_hidden_layers)
            for side in ("key", "value")
        }

    def run(self, feeds: Feeds, caches: Feeds) -> FloatArray:
        """Runs the graph; `caches` then hold the new keys and values. Returns the logits."""
        levels = {
            f"deepstack_embeds.{level}": np.zeros((1, 1, self._text.hidden_size), np.float32)
            for level in range(self._levels)
        }
        given = {**feeds, **levels, **caches}
        taken = {name: array for name, array in given.items() if name in self._inputs}
        outputs = dict(zip(self._names, self._session.run(self._names, taken), strict=True))
        for name in caches:  # Tandem's operators write into what they are given
            caches[name] = outputs.get(name.replace("past_key_values.", "present."), caches[name])
        logits: FloatArray = outputs["logits"]
        return logits


def runs_of(graph: DecoderGraph) -> Mapping[str, Run]:
    """The ways to run a graph that round differently, by what the manifest's quality calls them.

    Tandem's operators compute a row in one way, whatever runs beside it.
    """
    if graph.kernels == "tandem":
        return {f"tandem_{graph.kv_dtype}": prompt_at_once}
    return {"prompt": prompt_at_once, "one_row": row_by_row}


def prompt_at_once(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """Every prompt in one run."""
    return np.stack([_chunk(graph, prompt, graph.cache(len(prompt)), 0) for prompt in embeds])


def row_by_row(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """Every token in a run of its own."""
    return np.stack([np.concatenate(list(_steps(graph, prompt))) for prompt in embeds])


def _steps(graph: GraphRunner, prompt: FloatArray) -> Iterator[FloatArray]:
    cache = graph.cache(len(prompt))
    for past in range(len(prompt)):
        yield _chunk(graph, prompt[past : past + 1], cache, past)


def _chunk(graph: GraphRunner, rows: FloatArray, cache: Feeds, past: int) -> FloatArray:
    length = past + len(rows)
    feeds: Feeds = {
        "inputs_embeds": rows[None],
        "position_ids": _positions(np.arange(past, length)),
        "seqlens_k": np.array([length - 1], np.int32),
        "total_sequence_length": np.array(length, np.int32),
        "logit_indices": np.arange(len(rows)),
        "sequences": np.array([[0, len(rows), past]], np.int32),
    }
    return graph.run(feeds, cache)


def _positions(positions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.broadcast_to(positions, (3, 1, len(positions))).astype(np.int64)
