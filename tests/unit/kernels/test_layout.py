"""What the exporter packs and what the C++ reads are the same layout."""

import re
from pathlib import Path

import pytest

from deploy.export.options import BLOCK_SIZES
from kernels import layout
from kernels.build import SOURCES

SHARED = {
    "products/matmul.h": ("TILE_OUTPUTS", "BLOCK_SIZE_STEP", "MOST_BLOCK_SIZE"),
    "attention/attention.h": ("HEAD_DIM_STEP", "MOST_HEAD_DIM", "MOST_GROUPED_HEADS"),
}


def constants_of(header: Path) -> dict[str, int]:
    found = re.findall(r"^constexpr int (\w+) = (\d+);", header.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


@pytest.mark.parametrize("header", SHARED)
def test_a_header_and_the_layout_name_the_same_numbers(header: str) -> None:
    expected = {name: getattr(layout, name) for name in SHARED[header]}
    assert constants_of(SOURCES / header) == expected


def test_every_block_size_the_exporter_offers_is_one_the_operators_take() -> None:
    assert max(BLOCK_SIZES) <= layout.MOST_BLOCK_SIZE
    assert all(size % layout.BLOCK_SIZE_STEP == 0 for size in BLOCK_SIZES)
