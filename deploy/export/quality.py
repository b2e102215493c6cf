"""Measures what quantization changed: agreement and divergence from the float32 weights.

A float32 graph of the same checkpoint answers the same fixed prompts of random tokens. Every way
the decoder runs a graph is compared with it, because integer arithmetic rounds differently in
each: one-row products of `MatMulNBits`, for example, differ from those of several rows. Random
tokens are no language, so the figures compare exports of one model with each other; what they mean
for answers is for an evaluation with real prompts to say.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deploy import tower_loss
from deploy.divergence import kl_divergence
from deploy.export import graph_runs, manifest
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.checkpoint.weights import DTYPES
from deploy.export.decoder import embedding_table
from deploy.export.decoder import graphs as decoder
from deploy.export.options import ExportOptions
from deploy.export.progress import ExportProgress
from deploy.export.vision import loss
from kernels import library
from protos.bundle.manifest import DecoderGraph

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
    """Compares the graphs just written with the float32 weights.

    Args:
        root: The bundle being made; a float32 graph lies there for the while.
        checkpoint: Its source.
        model: The checkpoint's skeleton.
        options: With precision and whether to measure a large model.
        progress: Gets a line with the figures.

    Returns:
        The manifest's quality entry, without what was not measured. For each of its `paths`, the
        ways to run a graph, `top1_agreement` is the share of positions with the same likeliest
        token and `mean_kl_divergence` is in nats. `tower` is of the tower's fast form; see
        `vision.loss`.
    """
    figures = _decoder_figures(root, checkpoint, model, options, progress)
    tower = loss.measured(root / "vision", checkpoint.config["vision_config"])
    if tower is not None:
        progress.note(tower_loss.described(tower))
        figures["tower"] = tower
    return figures


def is_measured(checkpoint: Checkpoint, options: ExportOptions) -> bool:
    """Whether `report` compares the decoder's graphs with the float32 weights."""
    size = sum(tensor.size for tensor in checkpoint.tensors.values())
    return options.bits is not None and (options.quality or size <= SMALL_BYTES)


def _decoder_figures(
    root: Path, checkpoint: Checkpoint, model: Any, options: ExportOptions, progress: ExportProgress
) -> dict[str, Any]:
    reference = root / REFERENCE_FOLDER
    shutil.rmtree(reference, ignore_errors=True)  # an earlier export was killed here
    if not is_measured(checkpoint, options):
        return {}
    try:
        exact = decoder.exact(options)
        with progress.stage("quality", decoder.expected_bytes(checkpoint, exact)) as advance:
            decoder.write(checkpoint, model, exact, reference, advance)
            graphs = manifest.graphs_of(root, checkpoint, options)
            figures = _compare(root, reference / decoder.GRAPH_NAME, checkpoint, graphs)
    finally:
        shutil.rmtree(reference, ignore_errors=True)
    progress.note(_table(figures))
    return figures


def _table(figures: Mapping[str, Any]) -> str:
    lines = [f"quality over {figures['tokens']} random tokens: top-1 agreement, mean KL divergence"]
    for name, found in figures["paths"].items():
        agreement, divergence = found["top1_agreement"], found["mean_kl_divergence"]
        lines.append(f"  {name:<12} {agreement:6.3f}  {divergence:.5f} nats")
    return "\n".join(lines)


def _compare(
    root: Path, reference: Path, checkpoint: Checkpoint, graphs: Sequence[DecoderGraph]
) -> dict[str, Any]:
    prompts = np.random.default_rng(SEED).integers(
        0, checkpoint.text.vocab_size, (PROMPTS, PROMPT_TOKENS)
    )
    embeds = _embeddings(root, checkpoint, prompts)
    exact = graph_runs.prompt_at_once(graph_runs.GraphRunner(reference, checkpoint), embeds)
    found = {}
    for graph in graphs:
        if graph.kernels == "tandem" and library.path() is None:
            continue
        runner = graph_runs.GraphRunner(root / graph.file, checkpoint, graph)
        for name, run in graph_runs.runs_of(graph).items():
            found[name] = _figures(exact, run(runner, embeds))
    return {
        "reference": "the same checkpoint's float32 graph",
        "prompts": PROMPTS,
        "tokens": prompts.size,
        "paths": found,
    }


def _figures(exact: FloatArray, found: FloatArray) -> dict[str, float]:
    pairs = list(zip(exact, found, strict=True))  # one prompt at a time: float64 takes room
    divergence = sum(float(kl_divergence(one, other).sum()) for one, other in pairs)
    return {
        "top1_agreement": float((exact.argmax(-1) == found.argmax(-1)).mean()),
        "mean_kl_divergence": divergence / (exact.shape[0] * exact.shape[1]),
        "max_logit_difference": max(float(np.abs(one - other).max()) for one, other in pairs),
    }


def _embeddings(root: Path, checkpoint: Checkpoint, ids: npt.NDArray[np.int64]) -> FloatArray:
    stored = checkpoint.embeddings
    item = stored.size // (stored.shape[0] * stored.shape[1])
    raw = np.memmap(
        root / "decoder" / embedding_table.FILE_NAME,
        np.uint8,
        "r",
        shape=(stored.shape[0], stored.shape[1] * item),
    )
    rows = torch.from_numpy(raw[ids]).view(DTYPES[stored.dtype]).to(torch.float32)
    result: FloatArray = rows.numpy()
    return result
