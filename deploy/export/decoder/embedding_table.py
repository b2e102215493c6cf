"""Copies the token embedding table out of a checkpoint exactly as stored."""

from collections.abc import Mapping
from pathlib import Path

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.progress import Advance

FILE_NAME = "embeddings.bin"
# The manifest's names of safetensors' number types.
DTYPE_NAMES: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def write(table: StoredTensor, folder: Path, advance: Advance) -> None:
    """Writes the table as a raw row-major file in the checkpoint's own dtype.

    Args:
        table: [vocab_size, hidden_size].
        folder: The bundle's decoder folder.
        advance: Called with the bytes copied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE_NAME).open("wb") as target:
        for piece in table.pieces():
            target.write(piece)
            advance(len(piece))
