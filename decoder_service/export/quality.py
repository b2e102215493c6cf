"""Measures what quantization changed: agreement and divergence from the float32 weights.

A float32 graph of the same checkpoint answers the same fixed prompts of random tokens. Random
tokens are no language, so the figures compare exports of one model with each other; what they mean
for answers is for an evaluation with real prompts to say.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from decoder_service.export import decoder, tables
from decoder_service.export.checkpoint import EMBEDDING_NAME, Checkpoint
from decoder_service.export.options import ExportOptions
from decoder_service.export.progress import ExportProgress
from decoder_service.export.weights import DTYPES

PROMPTS = 8
PROMPT_TOKENS = 64
SEED = 20240613
# Models up to this size are measured without being asked; it takes a second.
SMALL_BYTES = 64 * 1024 * 1024
REFERENCE_FOLDER = "reference.partial"

FloatArray = npt.NDArray[np.float32]


def report(
    root: Path, checkpoint: Checkpoint, model: Any, options: ExportOptions, progress: ExportProgress
) -> dict[str, Any]:
    """Compares the graph just written with the float32 weights.

    Args:
        root: The bundle being made; a float32 graph lies there for the while.
        checkpoint: Its source.
        model: The checkpoint's skeleton.
        options: With precision and whether to measure a large model.
        progress: Gets a line with the figures.

    Returns:
        The manifest's quality entry: empty where nothing was measured. `top1_agreement` is the
        share of positions with the same likeliest token, `mean_kl_divergence` is in nats.
    """
    reference = root / REFERENCE_FOLDER
    shutil.rmtree(reference, ignore_errors=True)  # an earlier export was killed here
    size = sum(tensor.size for tensor in checkpoint.tensors.values())
    wanted = options.quality or size <= SMALL_BYTES
    if options.bits is None or options.execution_provider != "cpu" or not wanted:
        return {}
    try:
        exact = replace(options, precision="fp32")
        with progress.stage("quality", decoder.expected_bytes(checkpoint, exact)) as advance:
            decoder.write(checkpoint, model, exact, reference, advance)
            figures = _compare(root, reference, checkpoint)
    finally:
        shutil.rmtree(reference, ignore_errors=True)
    progress.note(
        f"quality: top-1 agreement {figures['top1_agreement']:.3f}, mean KL divergence"
        f" {figures['mean_kl_divergence']:.4f} nats over {figures['tokens']} random tokens"
    )
    return figures


def _compare(root: Path, reference: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    prompts = np.random.default_rng(SEED).integers(
        0, checkpoint.text.vocab_size, (PROMPTS, PROMPT_TOKENS)
    )
    embeds = _embeddings(root, checkpoint, prompts)
    same, divergence, difference = 0, 0.0, 0.0
    pairs = zip(
        _logits(reference / decoder.GRAPH_NAME, checkpoint, embeds),
        _logits(root / "decoder" / decoder.GRAPH_NAME, checkpoint, embeds),
        strict=True,
    )
    for exact, found in pairs:
        same += int((exact.argmax(-1) == found.argmax(-1)).sum())
        divergence += float(_kl_divergence(exact, found).sum())
        difference = max(difference, float(np.abs(exact - found).max()))
    return {
        "reference": "the same checkpoint's float32 graph",
        "prompts": PROMPTS,
        "tokens": prompts.size,
        "top1_agreement": same / prompts.size,
        "mean_kl_divergence": divergence / prompts.size,
        "max_logit_difference": difference,
    }


def _embeddings(root: Path, checkpoint: Checkpoint, ids: npt.NDArray[np.int64]) -> FloatArray:
    stored = checkpoint.tensors[EMBEDDING_NAME]
    item = stored.size // (stored.shape[0] * stored.shape[1])
    raw = np.memmap(
        root / "decoder" / tables.EMBEDDINGS_NAME,
        np.uint8,
        "r",
        shape=(stored.shape[0], stored.shape[1] * item),
    )
    rows = torch.from_numpy(raw[ids]).view(DTYPES[stored.dtype]).to(torch.float32)
    result: FloatArray = rows.numpy()
    return result


def _logits(graph: Path, checkpoint: Checkpoint, embeds: FloatArray) -> Iterator[FloatArray]:
    """One prompt's logits after the other, [PROMPT_TOKENS, vocab]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    text = checkpoint.text
    positions = np.broadcast_to(np.arange(PROMPT_TOKENS), (3, 1, PROMPT_TOKENS)).copy()
    empty = np.zeros((1, text.num_key_value_heads, 0, text.head_dim), np.float32)
    feeds = {
        "position_ids": positions,
        "seqlens_k": np.array([PROMPT_TOKENS - 1], np.int32),
        "total_sequence_length": np.array(PROMPT_TOKENS, np.int32),
        "logit_indices": np.arange(PROMPT_TOKENS),
    }
    for level in range(len(checkpoint.vision.deepstack_visual_indexes)):
        feeds[f"deepstack_embeds.{level}"] = np.zeros((1, 1, text.hidden_size), np.float32)
    for layer in range(text.num_hidden_layers):
        feeds[f"past_key_values.{layer}.key"] = empty
        feeds[f"past_key_values.{layer}.value"] = empty
    for prompt in embeds:
        yield session.run(["logits"], {**feeds, "inputs_embeds": prompt[None]})[0]


def _kl_divergence(exact: FloatArray, found: FloatArray) -> npt.NDArray[np.float64]:
    """KL(exact || found) of every row, in nats."""
    p, q = _log_softmax(exact), _log_softmax(found)
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result


def _log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
