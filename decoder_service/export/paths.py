"""Runs prompts through a graph in each of the ways the decoder does, to compare what comes out."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder_service.export.checkpoint import Checkpoint
from protos.bundle import DecoderGraph

FloatArray = npt.NDArray[np.float32]
Feeds = dict[str, npt.NDArray[Any]]
# Logits [prompts, tokens, vocab] of embedded prompts [prompts, tokens, hidden].
PathRun = Callable[["GraphRunner", FloatArray], FloatArray]


class GraphRunner:
    """One graph in ONNX Runtime."""

    def __init__(self, file: Path, checkpoint: Checkpoint) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Saturating 16-bit sums of processors without VNNI are not the graph's doing.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
        self._text = checkpoint.text
        self._levels = checkpoint.deepstack_levels
        self._names = [output.name for output in self._session.get_outputs()]

    def cache(self, lane: str, sequences: int, length: int) -> Feeds:
        """Empty keys and values of some sequences of at most `length` tokens."""
        text = self._text
        shape = (sequences, text.num_key_value_heads, length, text.head_dim)
        return {
            f"{lane}past_key_values.{layer}.{side}": np.zeros(shape, np.float32)
            for layer in range(text.num_hidden_layers)
            for side in ("key", "value")
        }

    def run(self, feeds: Feeds, caches: Feeds) -> FloatArray:
        """Runs the graph; `caches` then hold the new keys and values. Returns the logits."""
        levels = {
            f"deepstack_embeds.{level}": np.zeros((1, 1, self._text.hidden_size), np.float32)
            for level in range(self._levels)
        }
        found = self._session.run(self._names, {**feeds, **levels, **caches})
        outputs = dict(zip(self._names, found, strict=True))
        for name in caches:
            caches[name] = outputs[name.replace("past_key_values.", "present.")]
        logits: FloatArray = outputs["logits"]
        return logits


def paths_of(graph: DecoderGraph) -> Mapping[str, PathRun]:
    """The ways to run a graph, by what the manifest calls them."""
    if graph.lanes == 1:
        return {"prompt": prompt_at_once, "one_row": row_by_row}
    return {"wide_prompt": prompt_beside_a_row, "wide_rows": rows_beside_a_prompt}


def prompt_at_once(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """A single-lane graph, every prompt in one run."""
    return np.stack([_chunk(graph, prompt, graph.cache("", 1, 0), 0) for prompt in embeds])


def row_by_row(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """A single-lane graph, every token in a run of its own."""
    return np.stack([np.concatenate(list(_steps(graph, prompt))) for prompt in embeds])


def _steps(graph: GraphRunner, prompt: FloatArray) -> Iterator[FloatArray]:
    cache = graph.cache("", 1, len(prompt))
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
    }
    return graph.run(feeds, cache)


def prompt_beside_a_row(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """A two-lane graph, every prompt in the prefill lane."""
    found = []
    for prompt in embeds:
        caches = {**graph.cache("prefill.", 1, 0), **graph.cache("decode.", 1, 1)}
        row = np.zeros_like(prompt[:1])
        found.append(_both(graph, prompt, row, caches, past=0, rows=np.arange(len(prompt))))
    return np.stack(found)


def rows_beside_a_prompt(graph: GraphRunner, embeds: FloatArray) -> FloatArray:
    """A two-lane graph, the prompts together in the decode lane, a token of each in every run."""
    count, length = embeds.shape[:2]
    caches = {**graph.cache("prefill.", 1, 1), **graph.cache("decode.", count, length)}
    rows = 1 + np.arange(count)
    steps = [
        _both(graph, embeds[0, :1] * 0, embeds[:, past], caches, past=past, rows=rows)
        for past in range(length)
    ]
    return np.stack(steps, axis=1)


def _both(
    graph: GraphRunner,
    prompt: FloatArray,
    decode: FloatArray,
    caches: Feeds,
    *,
    past: int,
    rows: npt.NDArray[np.int64],
) -> FloatArray:
    positions = np.concatenate([np.arange(len(prompt)), np.full(len(decode), past)])
    feeds: Feeds = {
        "inputs_embeds": np.concatenate([prompt, decode])[None],
        "position_ids": _positions(positions),
        "prefill.seqlens_k": np.array([len(prompt) - 1], np.int32),
        "prefill.total_sequence_length": np.array(len(prompt), np.int32),
        "decode.seqlens_k": np.full(len(decode), past, np.int32),
        "decode.total_sequence_length": np.array(past + 1, np.int32),
        "logit_indices": rows,
    }
    return graph.run(feeds, caches)


def _positions(positions: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.broadcast_to(positions, (3, 1, len(positions))).astype(np.int64)
