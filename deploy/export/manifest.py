"""Writes tandem.json, the last file of a bundle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from deploy.export import libraries, tables
from deploy.export.checkpoint.checkpoint import EMBEDDING_NAME, Checkpoint
from deploy.export.checkpoint.config import FAMILY
from deploy.export.decoder import graphs as decoder
from deploy.export.decoder import kernel_graphs
from deploy.export.options import ExportOptions
from protos.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    DecoderGraph,
    EmbeddingTable,
    FileEntry,
    Manifest,
    TextDims,
    file_sha256,
)


def entries_of(root: Path, names: list[str]) -> dict[str, FileEntry]:
    """Sizes and digests of files of a bundle."""
    return {
        name: FileEntry(size=(root / name).stat().st_size, sha256=file_sha256(root / name))
        for name in sorted(names)
    }


def write(
    root: Path,
    checkpoint: Checkpoint,
    options: ExportOptions,
    *,
    model_id: str,
    revision: str | None,
    files: Mapping[str, FileEntry],
    quality: Mapping[str, Any],
) -> None:
    """Writes the manifest whole or not at all."""
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        family=FAMILY,
        model_id=model_id,
        revision=revision,
        text=checkpoint.text,
        vision=checkpoint.vision,
        special_tokens=checkpoint.special_tokens,
        generation=checkpoint.generation,
        embedding_table=EmbeddingTable(
            file=f"decoder/{tables.EMBEDDINGS_NAME}",
            dtype=tables.DTYPE_NAMES[checkpoint.tensors[EMBEDDING_NAME].dtype],
        ),
        graphs=graphs_of(root, checkpoint.text, options),
        versions=libraries.versions(),
        files=files,
        quality=quality,
    )
    partial = root / f"{MANIFEST_NAME}.partial"
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(root / MANIFEST_NAME)


def graphs_of(root: Path, text: TextDims, options: ExportOptions) -> tuple[DecoderGraph, ...]:
    """The graphs a bundle holds, as its manifest describes them."""
    quantized = options.bits is not None
    single = DecoderGraph(
        file=f"decoder/{decoder.GRAPH_NAME}",
        precision=options.precision,
        block_size=options.block_size if quantized else None,
        accuracy_level=options.accuracy_level if quantized else None,
        kv_dtype="float16" if options.execution_provider == "cuda" else "float32",
        execution_provider=options.execution_provider,
    )
    graphs = [single]
    if decoder.has_kernel_graphs(text, options):
        graphs += [
            replace(
                single,
                file=f"decoder/{kernel_graphs.graph_name(dtype)}",
                kernels="tandem",
                kv_dtype=dtype,
            )
            for dtype in kernel_graphs.KV_DTYPES
        ]
    return tuple(replace(graph, weight_bytes=_weight_bytes(root / graph.file)) for graph in graphs)


def _weight_bytes(file: Path) -> int:
    model = ir.load(file)
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
