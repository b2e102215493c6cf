"""Reads safetensors files piece by piece, so that no more than one tensor is ever in memory."""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deploy.export.errors import ExportError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 100 * 1024 * 1024
COPY_BYTES = 8 * 1024 * 1024

DTYPES: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
# Everything safetensors can hold, by which a file is judged whole.
ITEM_BITS: Mapping[str, int] = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies."""

    name: str
    file: Path
    offset: int  # bytes from the start of the file
    size: int  # bytes
    dtype: str  # safetensors' name, such as "F32"; only those of `DTYPES` can be read
    shape: tuple[int, ...]

    def read(self) -> torch.Tensor:
        """Reads the tensor into memory of its own."""
        buffer = bytearray(self.size)
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            if stream.readinto(buffer) != self.size:
                raise ExportError(f"{self.file.name} ends within {self.name}")
        if self.size == 0:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype])
        return torch.frombuffer(buffer, dtype=DTYPES[self.dtype]).reshape(self.shape)

    def pieces(self) -> Iterator[bytes]:
        """The tensor's bytes as stored, in pieces of at most 8 MiB."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            left = self.size
            while left:
                piece = stream.read(min(left, COPY_BYTES))
                if not piece:
                    raise ExportError(f"{self.file.name} ends within {self.name}")
                left -= len(piece)
                yield piece


def read_index(folder: Path) -> dict[str, StoredTensor]:
    """Finds every tensor of a checkpoint, single file or sharded.

    Raises:
        ExportError: no safetensors weights, a missing or damaged file, or a tensor that the index
            promises and its file lacks.
    """
    index = folder / INDEX_NAME
    if not index.is_file():
        if not (folder / SINGLE_NAME).is_file():
            raise ExportError(f"the checkpoint has neither {SINGLE_NAME} nor {INDEX_NAME}")
        return _read_header(folder / SINGLE_NAME)
    placed = weight_map(index)
    headers = {name: _read_header(folder / name) for name in sorted(set(placed.values()))}
    tensors = {}
    for tensor, file in placed.items():
        if tensor not in headers[file]:
            raise ExportError(f"{INDEX_NAME} places {tensor} in {file}, which lacks it")
        tensors[tensor] = headers[file][tensor]
    return tensors


def split(
    tensors: Mapping[str, StoredTensor],
) -> tuple[dict[str, StoredTensor], dict[str, StoredTensor]]:
    """Tensors that can be read, and the rest: integer buffers, or weights that are quantized."""
    readable = {name: tensor for name, tensor in tensors.items() if tensor.dtype in DTYPES}
    return readable, {name: tensor for name, tensor in tensors.items() if name not in readable}


def unsupported(name: str, dtype: str) -> str:
    """Why a weight of the model cannot be exported as it is stored."""
    return (
        f"{name} is stored as {dtype}, expected one of {', '.join(DTYPES)};"
        " export the checkpoint that is not quantized"
    )


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file beside the index.

    Raises:
        ExportError: the index is damaged, or names a file that is not beside it.
    """
    try:
        placed = json.loads(index.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{INDEX_NAME} is not valid JSON with a weight_map") from error
    for file in placed.values():
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ExportError(f"{INDEX_NAME} names {file}, expected a safetensors file beside it")
    return dict(placed)


def _read_header(file: Path) -> dict[str, StoredTensor]:
    if not file.is_file():
        raise ExportError(f"the checkpoint lacks {file.name}")
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("header too long")
            header: dict[str, Any] = json.loads(stream.read(length))
    except (struct.error, ValueError) as error:
        raise ExportError(f"{file.name} is not a safetensors file") from error
    header.pop("__metadata__", None)
    file_size = file.stat().st_size
    return {
        name: _stored(name, entry, file, 8 + length, file_size) for name, entry in header.items()
    }


def _stored(
    name: str, entry: Mapping[str, Any], file: Path, data: int, file_size: int
) -> StoredTensor:
    try:
        begin, end = entry["data_offsets"]
        dtype, shape = str(entry["dtype"]), tuple(int(size) for size in entry["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"{file.name} describes {name} badly") from error
    if dtype not in ITEM_BITS:
        raise ExportError(f"{name} is stored as {dtype}, which is no type of safetensors")
    count = 1
    for size in shape:
        count *= size
    if (end - begin) * 8 != count * ITEM_BITS[dtype] or begin < 0 or data + end > file_size:
        raise ExportError(f"{file.name} is damaged or incomplete at {name}")
    return StoredTensor(
        name=name, file=file, offset=data + begin, size=end - begin, dtype=dtype, shape=shape
    )
