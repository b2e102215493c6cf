"""Writes tandem.json, the last file of a bundle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from deploy.export import libraries
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.decoder import embedding_table, kernel_graphs
from deploy.export.decoder import graphs as decoder
from deploy.export.options import ExportOptions
from protos.bundle.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    DecoderGraph,
    EmbeddingTable,
    FileEntry,
    Manifest,
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
        family=checkpoint.family.name,
        model_id=model_id,
        revision=revision,
        text=checkpoint.text,
        vision=checkpoint.vision,
        special_tokens=checkpoint.special_tokens,
        generation=checkpoint.generation,
        embedding_table=EmbeddingTable(
            file=f"decoder/{embedding_table.FILE_NAME}",
            dtype=embedding_table.DTYPE_NAMES[checkpoint.embeddings.dtype],
        ),
        graphs=graphs_of(root, checkpoint, options),
        versions=libraries.versions(),
        files=files,
        quality=quality,
    )
    partial = root / f"{MANIFEST_NAME}.partial"
    partial.write_text(manifest.to_json(), encoding="utf-8")
    partial.replace(root / MANIFEST_NAME)


def graphs_of(
    root: Path, checkpoint: Checkpoint, options: ExportOptions
) -> tuple[DecoderGraph, ...]:
    """The graphs a bundle holds, as its manifest describes them."""
    quantized = options.bits is not None
    single = DecoderGraph(
        file=f"decoder/{decoder.GRAPH_NAME}",
        precision=options.precision,
        block_size=options.block_size if quantized else None,
        accuracy_level=options.accuracy_level if quantized else None,
    )
    graphs = [single]
    if decoder.has_kernel_graphs(checkpoint, options):
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
