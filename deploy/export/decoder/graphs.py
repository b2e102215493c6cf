"""Writes the decoder's graphs: onnxruntime-genai's, read layer by layer, then adapted."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from deploy.export import libraries
from deploy.export.checkpoint.checkpoint import TEXT_PREFIX, Checkpoint
from deploy.export.decoder import fusing, kernel_graphs, streaming, surgery
from deploy.export.options import ExportOptions
from deploy.export.progress import Advance
from protos.bundle.manifest import TextDims

GRAPH_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
NAMES = (GRAPH_NAME, DATA_NAME)  # what `write` makes
# Small constants stay in the graph, where shape inference sees them.
EXTERNAL_FROM_BYTES = 1024


def skeleton(checkpoint: Checkpoint) -> Any:
    """transformers' model class without weights, to know names, shapes and modules.

    The weights a checkpoint must have are what this class has; `Checkpoint.require` compares.
    """
    libraries.without_broken_torchvision()
    from transformers import AutoConfig, Qwen3VLForConditionalGeneration

    config = AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=False)
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(config)


def required_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every parameter the model class has, with its shape."""
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


def write(
    checkpoint: Checkpoint, model: Any, options: ExportOptions, folder: Path, advance: Advance
) -> None:
    """Builds the portable graph and writes it with its weights.

    Args:
        checkpoint: The source.
        model: Its skeleton; stays without weights.
        options: Precision and quantization.
        folder: Gets `NAMES`.
        advance: Called with checkpoint bytes read and graph bytes written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).unlink(missing_ok=True)
    builder = _builder(checkpoint, model, options, advance)
    graph = builder.model.graph
    surgery.adapt(
        graph,
        layers=checkpoint.text.num_hidden_layers,
        levels=checkpoint.deepstack_levels,
    )
    if options.bits:
        fusing.fuse(graph)
    graph.sort()

    def saved(tensor: Any, _info: Any) -> None:
        advance(tensor.nbytes)

    ir.save(
        builder.model,
        folder / GRAPH_NAME,
        external_data=DATA_NAME,
        size_threshold_bytes=EXTERNAL_FROM_BYTES,
        callback=saved,
    )


def has_kernel_graphs(text: TextDims, options: ExportOptions) -> bool:
    """Whether Tandem's operators compute what was asked for."""
    return options.allows_kernel_graphs and kernel_graphs.fits(text)


def write_kernel_graphs(folder: Path, advance: Advance) -> None:
    """Writes the graphs for Tandem's own operators beside the portable ones; see there."""
    for name in kernel_graphs.NAMES:
        (folder / name).unlink(missing_ok=True)
    kernel_graphs.write(folder / GRAPH_NAME, folder, advance)


def expected_bytes(checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Bytes that `write` reads and writes, nearly."""
    layers = checkpoint.with_prefix(f"{TEXT_PREFIX}layers.").values()
    stored = [*layers, checkpoint.lm_head]
    read = sum(tensor.size for tensor in stored)
    weights = sum(tensor.shape[0] * tensor.shape[-1] for tensor in stored if len(tensor.shape) == 2)
    bits, half = options.bits, options.precision == "fp16"
    per_weight = bits / 8 + 4 / options.block_size if bits else 2.0 if half else 4.0
    rope = checkpoint.text.max_position_embeddings * checkpoint.text.head_dim * 4
    return read + int(weights * per_weight) + rope


def expected_kernel_bytes(folder: Path) -> int:
    """Bytes that `write_kernel_graphs` writes, nearly."""
    return (folder / DATA_NAME).stat().st_size


def _builder(checkpoint: Checkpoint, model: Any, options: ExportOptions, advance: Advance) -> Any:
    """The builder after it has read every layer."""
    builder_class = streaming.text_model_class()
    config = model.config
    config._name_or_path = str(checkpoint.path)
    # On GPUs products and the cache are float16; norms, rotary positions and the residual stream
    # stay float32 in any case.
    dtype = ir.DataType.FLOAT16 if options.execution_provider == "cuda" else ir.DataType.FLOAT
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(io.StringIO()):
        builder = builder_class(
            config, dtype, dtype, options.execution_provider, cache, {"exclude_embeds": True}
        )
        builder.input_types["inputs_embeds"] = ir.DataType.FLOAT
        builder.output_types["logits"] = ir.DataType.FLOAT
        builder.source = streaming.Source(checkpoint, advance)
        builder.skeleton = model
        builder.options = options
        builder.make_model(str(checkpoint.path))
    return builder
