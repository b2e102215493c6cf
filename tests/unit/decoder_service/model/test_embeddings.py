"""The embedding table and scattering features into prompt chunks."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.model.embeddings import EmbeddingTable, PlacedFeatures, scatter
from protos.bundle.manifest import BundleError


def table_of(folder: Path, dtype: str, stored: npt.NDArray[Any]) -> EmbeddingTable:
    file = folder / "embeddings.bin"
    stored.tofile(file)
    return EmbeddingTable(file, dtype=dtype, vocab_size=len(stored), hidden_size=stored.shape[1])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_are_exactly_what_is_stored(tmp_path: Path, dtype: str) -> None:
    exact = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    if dtype == "bfloat16":
        halves = (exact.view(np.uint32) >> 16).astype(np.uint16)
        exact = (halves.astype(np.uint32) << 16).view(np.float32)
        stored = halves
    else:
        stored = exact.astype(dtype)
        exact = stored.astype(np.float32)
    rows = table_of(tmp_path, dtype, stored).rows(np.array([3, 3, 19]))
    assert rows.dtype == np.float32
    assert np.array_equal(rows, exact[[3, 3, 19]])


def test_rows_may_be_changed_without_touching_the_table(tmp_path: Path) -> None:
    table = table_of(tmp_path, "float32", np.ones((4, 2), np.float32))
    table.rows(np.array([1]))[:] = 5
    assert (table.rows(np.array([1])) == 1).all()


def test_a_table_of_another_size_or_dtype_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "embeddings.bin"
    file.write_bytes(b"1234")
    for dtype in ("float32", "int3"):
        with pytest.raises(BundleError):
            EmbeddingTable(file, dtype=dtype, vocab_size=3, hidden_size=2)
    with pytest.raises(BundleError):
        EmbeddingTable(tmp_path / "none", dtype="float32", vocab_size=3, hidden_size=2)


@settings(deadline=None)
@given(
    start=st.integers(0, 12),
    count=st.integers(1, 12),
    places=st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=3),
)
def test_a_chunk_gets_exactly_the_rows_of_the_spans_it_overlaps(
    start: int, count: int, places: list[tuple[int, int]]
) -> None:
    features = [
        PlacedFeatures(offset, np.full((3, length, 2), [[[i + 1.0]], [[10.0]], [[20.0]]], "f4"))
        for i, (offset, length) in enumerate(places)
    ]
    whole = np.zeros((30, 2), np.float32)
    levels = np.zeros((2, 30, 2), np.float32)
    for offset, values in features:
        whole[offset : offset + values.shape[1]] = values[0]
        levels[:, offset : offset + values.shape[1]] = values[1:]
    chunk = np.zeros((count, 2), np.float32)
    deepstack = scatter(chunk, start, features, level_count=2)
    assert np.array_equal(chunk, whole[start : start + count])
    wanted = levels[:, start : start + count]
    if deepstack is None:
        assert not wanted.any()
    else:
        assert np.array_equal(deepstack, wanted)
