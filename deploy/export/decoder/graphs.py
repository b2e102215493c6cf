"""Writes the decoder's graphs: onnxruntime-genai's, read layer by layer, then adapted."""

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from deploy.export import libraries
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.decoder import fusing, kernel_graphs, streaming, surgery
from deploy.export.options import ExportOptions
from deploy.export.progress import Advance

GRAPH_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
NAMES = (GRAPH_NAME, DATA_NAME)  # what `write` makes
# Small constants stay in the graph, where shape inference sees them.
EXTERNAL_FROM_BYTES = 1024


def skeleton(checkpoint: Checkpoint) -> Any:
    """transformers' model class without weights, to know names, shapes and modules.

    The weights a checkpoint must have are what this class has; `Checkpoint.require` compares.
    """
    model_class = libraries.model_class(checkpoint.family)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint.path, trust_remote_code=False)
    with torch.device("meta"):
        return model_class(config)


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


def has_kernel_graphs(checkpoint: Checkpoint, options: ExportOptions) -> bool:
    """Whether Tandem's operators compute what was asked for."""
    is_computed = checkpoint.family.has_tandem_attention and kernel_graphs.fits(checkpoint.text)
    return options.allows_kernel_graphs and is_computed


def write_kernel_graphs(folder: Path, advance: Advance) -> None:
    """Writes the graphs for Tandem's own operators beside the portable ones; see there."""
    for name in kernel_graphs.NAMES:
        (folder / name).unlink(missing_ok=True)
    kernel_graphs.write(folder / GRAPH_NAME, folder, advance)


def expected_bytes(checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Bytes that `write` reads and writes, nearly."""
    read = sum(tensor.size for tensor in _stored(checkpoint))
    return read + written_bytes(checkpoint, options)


def exact(options: ExportOptions) -> ExportOptions:
    """Options of the float32 graph that others are compared with."""
    return replace(options, precision="fp32")


def written_bytes(checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Bytes that `write` writes, nearly."""
    shapes = [tensor.shape for tensor in _stored(checkpoint)]
    weights = sum(shape[0] * shape[-1] for shape in shapes if len(shape) == 2)
    bits, half = options.bits, options.precision == "fp16"
    per_weight = bits / 8 + 4 / options.block_size if bits else 2.0 if half else 4.0
    rope = checkpoint.text.max_position_embeddings * checkpoint.text.head_dim * 4
    return int(weights * per_weight) + rope


def _stored(checkpoint: Checkpoint) -> list[StoredTensor]:
    """The tensors that `write` reads."""
    layers = checkpoint.with_prefix(f"{checkpoint.family.tensors.text}layers.").values()
    return [*layers, checkpoint.lm_head]


def expected_kernel_bytes(folder: Path) -> int:
    """Bytes that `write_kernel_graphs` writes, nearly."""
    return (folder / DATA_NAME).stat().st_size


def _builder(checkpoint: Checkpoint, model: Any, options: ExportOptions, advance: Advance) -> Any:
    """The builder after it has read every layer."""
    builder_class = streaming.streaming_class(checkpoint.family)
    config = model.config
    config._name_or_path = str(checkpoint.path)
    with tempfile.TemporaryDirectory() as cache, contextlib.redirect_stdout(io.StringIO()):
        number = ir.DataType.FLOAT  # of inputs, outputs, the cache and everything between products
        builder = builder_class(config, number, number, "cpu", cache, {"exclude_embeds": True})
        builder.source = streaming.Source(checkpoint, advance)
        builder.skeleton = model
        builder.products = streaming.Products(options)
        builder.make_model(str(checkpoint.path))
    return builder
