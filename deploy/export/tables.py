"""Copies tensors out of a checkpoint exactly as stored: the embedding table and the tower."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.progress import Advance

EMBEDDINGS_NAME = "embeddings.bin"
DTYPE_NAMES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write_embeddings(table: StoredTensor, folder: Path, advance: Advance) -> None:
    """Writes the embedding table as a raw row-major file in the checkpoint's own dtype."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / EMBEDDINGS_NAME).open("wb") as target:
        for piece in table.pieces():
            target.write(piece)
            advance(len(piece))


def write_vision(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, object],
    folder: Path,
    advance: Advance,
) -> None:
    """Writes the vision tower alone: model.safetensors and config.json.

    Args:
        tensors: The tower's tensors by their names within it.
        config: The checkpoint's vision_config.
        folder: The bundle's vision folder.
        advance: Called with the bytes copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    ordered = [tensors[name] for name in sorted(tensors)]
    with (folder / "model.safetensors").open("wb") as target:
        target.write(_header(sorted(tensors), ordered))
        for tensor in ordered:
            for piece in tensor.pieces():
                target.write(piece)
                advance(len(piece))


def _header(names: Iterable[str], tensors: Iterable[StoredTensor]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in zip(names, tensors, strict=True):
        entries[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned to 8 bytes
    return struct.pack("<Q", len(text)) + text
