"""The token embedding table, memory-mapped, and scattering features over placeholder rows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from protos.bundle.manifest import Bundle, BundleError
from protos.wire.tensors import bfloat16_to_float32

FloatArray = npt.NDArray[np.float32]

_STORED: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),  # bit patterns
}


class EmbeddingTable:
    """Rows of the embedding table, read from the page cache as they are needed."""

    def __init__(self, file: Path, *, dtype: str, vocab_size: int, hidden_size: int) -> None:
        """Maps the file.

        Raises:
            BundleError: unknown dtype, or the file's size is not that of the table.
        """
        if dtype not in _STORED:
            raise BundleError(f"the embedding table has the unknown dtype {dtype!r}")
        stored = _STORED[dtype]
        wanted = vocab_size * hidden_size * stored.itemsize
        actual = file.stat().st_size if file.is_file() else 0
        if actual != wanted:
            raise BundleError(
                f"the bundle is damaged: {file.name} has {actual} bytes, expected {wanted}"
            )
        self._is_bfloat16 = dtype == "bfloat16"
        self._table = np.memmap(file, dtype=stored, mode="r", shape=(vocab_size, hidden_size))

    @classmethod
    def open(cls, bundle: Bundle) -> Self:
        """Maps the table of a bundle.

        Raises:
            BundleError: see `__init__`.
        """
        manifest = bundle.manifest
        return cls(
            bundle.path / manifest.embedding_table.file,
            dtype=manifest.embedding_table.dtype,
            vocab_size=manifest.text.vocab_size,
            hidden_size=manifest.text.hidden_size,
        )

    def rows(self, token_ids: npt.NDArray[np.integer]) -> FloatArray:
        """Embeddings of some tokens, exactly as stored.

        Args:
            token_ids: [T], each in [0, vocab).

        Returns:
            A fresh float32 [T, hidden].
        """
        found = np.asarray(self._table[token_ids])
        if self._is_bfloat16:
            return bfloat16_to_float32(found)
        return found.astype(np.float32, copy=False)


class PlacedFeatures(NamedTuple):
    """Features of one span and where its first placeholder lies in the prompt."""

    offset: int
    values: FloatArray  # float32 [1 + levels, N, hidden]


def scatter(
    embeds: FloatArray, start: int, features: Iterable[PlacedFeatures], level_count: int
) -> FloatArray | None:
    """Writes visual embeddings over the placeholder rows of one prompt chunk.

    Args:
        embeds: float32 [T, hidden], rows `start` to `start + T` of the prompt; changed in place.
        start: Prompt index of the first row.
        features: Spans that may overlap the chunk; only their overlap is used.
        level_count: DeepStack levels.

    Returns:
        DeepStack features of the chunk, float32 [levels, T, hidden], zero at text rows; None
        when no span overlaps it.

    Source: transformers Qwen3VLModel.forward (masked_scatter) and _deepstack_process; adding
        zeros at text rows changes nothing. Parity in tests/parity/test_graph.py.
    """
    stop = start + len(embeds)
    deepstack: FloatArray | None = None
    for offset, values in features:
        first = max(start, offset)
        last = min(stop, offset + values.shape[1])
        if first >= last:
            continue
        embeds[first - start : last - start] = values[0, first - offset : last - offset]
        if deepstack is None:
            deepstack = np.zeros((level_count, *embeds.shape), dtype=np.float32)
        deepstack[:, first - start : last - start] = values[1:, first - offset : last - offset]
    return deepstack
