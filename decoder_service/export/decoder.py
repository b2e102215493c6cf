"""Writes decoder/model.onnx: onnxruntime-genai's text graph, read layer by layer, then adapted."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from decoder_service.export import fusing, graph_surgery, libraries, streaming, two_lanes, wide
from decoder_service.export.checkpoint import TEXT_PREFIX, Checkpoint
from decoder_service.export.options import ExportOptions
from decoder_service.export.progress import Advance

GRAPH_NAME = "model.onnx"
DATA_NAME = "model.onnx.data"
WIDE_GRAPH_NAME = "model.wide.onnx"
WIDE_DATA_NAME = "model.wide.onnx.data"
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
    """Builds the graph and writes it with its weights.

    Args:
        checkpoint: The source.
        model: Its skeleton; stays without weights.
        options: Precision and quantization.
        folder: Gets model.onnx and model.onnx.data.
        advance: Called with checkpoint bytes read and graph bytes written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (GRAPH_NAME, DATA_NAME):
        (folder / name).unlink(missing_ok=True)
    builder = _builder(checkpoint, model, options, advance)
    graph = builder.model.graph
    graph_surgery.adapt(
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


def write_wide(
    checkpoint: Checkpoint, options: ExportOptions, folder: Path, advance: Advance
) -> None:
    """Writes the two-lane graph beside the single-lane one, whose data file it uses too.

    Args:
        checkpoint: The source.
        options: With the form of its weights.
        folder: Holds model.onnx and its data; gets model.wide.onnx and, for int8, its data.
        advance: Called with bytes written.
    """
    for name in (WIDE_GRAPH_NAME, WIDE_DATA_NAME):
        (folder / name).unlink(missing_ok=True)
    model = ir.load(folder / GRAPH_NAME)
    two_lanes.split(model.graph)
    model.graph.sort()
    if options.wide_form == "int8":
        made = wide.to_int8(model.graph, checkpoint.tensors)
        _store(made, folder, advance)
    ir.save(model, folder / WIDE_GRAPH_NAME)
    advance((folder / WIDE_GRAPH_NAME).stat().st_size)


def _store(values: list[ir.Value], folder: Path, advance: Advance) -> None:
    """Moves weights to the wide graph's data file, one at a time."""
    tensors = [value.const_value for value in values if value.const_value is not None]
    stored = ir.external_data.convert_tensors_to_external(
        tensors,
        folder,
        WIDE_DATA_NAME,
        callback=lambda tensor, _info: advance(tensor.nbytes),
        max_workers=1,
        max_in_flight_bytes=1,
    )
    for value, tensor in zip(values, stored, strict=True):
        value.const_value = tensor


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


def expected_wide_bytes(checkpoint: Checkpoint, options: ExportOptions) -> int:
    """Bytes that `write_wide` writes, nearly."""
    if options.wide_form != "int8":
        return 1
    layers, levels = checkpoint.text.num_hidden_layers, checkpoint.deepstack_levels
    kept = f"{layers - 1}.mlp." if levels < layers else "none"
    return sum(
        tensor.shape[0] * (tensor.shape[1] + 4)
        for name, tensor in checkpoint.with_prefix(f"{TEXT_PREFIX}layers.").items()
        if len(tensor.shape) == 2 and not name.startswith(kept)
    )


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
