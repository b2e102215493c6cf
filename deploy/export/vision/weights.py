"""Copies the vision tower out of a checkpoint exactly as stored."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.progress import Advance


def write(
    tensors: Mapping[str, StoredTensor],
    config: Mapping[str, object],
    folder: Path,
    advance: Advance,
) -> None:
    """Writes the tower alone: model.safetensors and config.json.

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
