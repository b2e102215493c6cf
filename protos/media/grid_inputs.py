"""What the tower's graphs need to know of the images' grids, computed outside of them in NumPy.

Everything that depends on height and width is an input: where and how much of the learned position
table each patch takes, its rotary angles, and which patches attend to each other. So the graphs
hold no arithmetic on shapes and run any sizes and any number of images together.

Tests: tests/parity/test_grid_inputs.py compares with transformers' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from protos.media.images import Grid

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

CORNERS = 4  # table entries that one patch's position lies between
_ROPE_THETA = 10_000.0  # transformers' default; published checkpoints do not state it


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSettings:
    """What of a tower's configuration decides its grid inputs."""

    table_side: int  # the learned position table is a square of that many entries a side
    merge_size: int
    head_dim: int
    rope_theta: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads a checkpoint's vision_config."""
        rope = config.get("rope_parameters") or {}
        return cls(
            table_side=isqrt(config["num_position_embeddings"]),
            merge_size=config["spatial_merge_size"],
            head_dim=config["hidden_size"] // config["num_heads"],
            rope_theta=float(rope.get("rope_theta", _ROPE_THETA)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridInputs:
    """Inputs of a tower's graph for P patches of several images, in the order of the pixels."""

    position_indices: IntArray  # [4, P], rows of the position table
    position_weights: FloatArray  # [4, P], what each of them counts
    rotary_cos: FloatArray  # [P, head_dim / 2]
    rotary_sin: FloatArray  # [P, head_dim / 2]
    segment_bounds: IntArray  # [S + 1], where the S runs of patches begin that attend together

    def feeds(self) -> dict[str, npt.NDArray[Any]]:
        """By the names of the graph's inputs."""
        return {name: getattr(self, name) for name in self.__slots__}


def grid_inputs(grids: Sequence[Grid], settings: GridSettings) -> GridInputs:
    """Computes the inputs of a batch.

    Args:
        grids: Of the images, each side a multiple of the merge size.
        settings: Of the tower.
    """
    rows, columns = _places(grids, settings.merge_size)
    heights = _per_patch([grid.h for grid in grids], grids)
    widths = _per_patch([grid.w for grid in grids], grids)
    indices, weights = _interpolation(rows, heights, columns, widths, settings.table_side)
    angles = _angles(rows, columns, settings)
    return GridInputs(
        position_indices=indices,
        position_weights=weights,
        rotary_cos=np.cos(angles),
        rotary_sin=np.sin(angles),
        segment_bounds=_bounds(grids),
    )


def _per_patch(values: Sequence[int], grids: Sequence[Grid]) -> IntArray:
    return np.repeat(np.array(values, np.int64), [grid.patches for grid in grids])


def _bounds(grids: Sequence[Grid]) -> IntArray:
    """A frame attends to itself alone, so each image has as many segments as frames."""
    lengths = [grid.h * grid.w for grid in grids for _ in range(grid.t)]
    return np.cumsum([0, *lengths], dtype=np.int64)


def _places(grids: Sequence[Grid], merge: int) -> tuple[IntArray, IntArray]:
    """Row and column of every patch; patches that are merged lie side by side."""
    rows, columns = zip(*(_places_of(grid, merge) for grid in grids), strict=True)
    return np.concatenate(rows), np.concatenate(columns)


def _places_of(grid: Grid, merge: int) -> tuple[IntArray, IntArray]:
    blocks = (grid.h // merge, merge, grid.w // merge, merge)
    row, column = np.indices((grid.h, grid.w)).reshape(2, *blocks).transpose(0, 1, 3, 2, 4)
    return np.tile(row.ravel(), grid.t), np.tile(column.ravel(), grid.t)


def _interpolation(
    rows: IntArray, heights: IntArray, columns: IntArray, widths: IntArray, side: int
) -> tuple[IntArray, FloatArray]:
    """Bilinear, with the corners of image and table on each other.

    Source: transformers get_vision_interpolation_indices_and_weights, whose float32 arithmetic
    this repeats step by step.
    """
    row_taps, row_weights = _axis(rows, heights, side)
    column_taps, column_weights = _axis(columns, widths, side)
    indices = row_taps[:, None] * side + column_taps[None]
    weights = row_weights[:, None] * column_weights[None]
    return indices.reshape(CORNERS, -1), weights.reshape(CORNERS, -1)


def _axis(index: IntArray, size: IntArray, side: int) -> tuple[IntArray, FloatArray]:
    """The two entries of an axis that a patch lies between, and their weights, both [2, P]."""
    last = np.maximum(size - 1, 1).astype(np.float32)
    source = index.astype(np.float32) * np.float32(side - 1) / last
    floor = np.floor(source)
    offsets = np.arange(2)[:, None]
    taps = np.clip(floor.astype(np.int64) + offsets, 0, side - 1)
    distance = np.abs(source - floor - offsets.astype(np.float32))
    return taps, np.maximum(np.float32(1) - distance, np.float32(0))


def _angles(rows: IntArray, columns: IntArray, settings: GridSettings) -> FloatArray:
    """Rotary angles [P, head_dim / 2]: the first half turns by rows, the second by columns."""
    axis = settings.head_dim // 2
    steps = np.arange(0, axis, 2) / axis
    frequencies = (1.0 / settings.rope_theta**steps).astype(np.float32)
    turned = (position.astype(np.float32)[:, None] * frequencies for position in (rows, columns))
    return np.concatenate(list(turned), axis=1)
