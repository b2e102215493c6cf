"""How `tandem.MatMulInt8` holds a weight: int8, one scale an output, as its kernels read it.

Thirty-two outputs lie side by side, four neighbouring inputs of each together: a register of a dot
product instruction, and a row of a matrix tile (AMX). A file that holds this is mapped and
multiplied as it lies.

    values[tile, four, 4 * lane + i] = weight[32 * tile + lane, 4 * four + i]

Outputs are padded to whole tiles and inputs to whole steps of 64 with weights of zero.

Tests: tests/unit/kernels/test_tower_operators.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MATMUL = "MatMulInt8"
MLP = "MlpInt8"
ATTENTION = "TowerAttention"
ACTIVATIONS = {None: 0, "tanh": 1, "none": 2}  # by ONNX's name of the GELU's approximation
# Limits and units that native/int8/matmul_int8.h states too.
LANES = 32
STEP = 64
MOST_INPUTS = 16384

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Weight:
    """A weight [N, K] with its bias; T = ceil(N / 32) tiles, K padded to KP."""

    values: npt.NDArray[np.int8]  # [T, KP / 4, 128], never -128
    scales: FloatArray  # [T, 32]
    sums: npt.NDArray[np.int32]  # [T, 32], of each output's values
    biases: FloatArray  # [T, 32]


def quantize(weight: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """The nearest int8 values [N, K] of a weight, and their scales [N]."""
    most = np.abs(weight).max(axis=1)
    scales = np.where(most < 1e-30, np.float32(1), most / np.float32(127)).astype(np.float32)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales


def pack(values: npt.NDArray[np.int8], scales: FloatArray, bias: FloatArray) -> Int8Weight:
    """Lays out int8 values [N, K], their scales [N] and a bias [N]."""
    outputs, inputs = values.shape
    padded = np.pad(values, ((0, -outputs % LANES), (0, -inputs % STEP)))
    tiles = len(padded) // LANES
    fours = padded.reshape(tiles, LANES, -1, 4).transpose(0, 2, 1, 3)
    sums = padded.sum(axis=1, dtype=np.int32)
    return Int8Weight(
        values=np.ascontiguousarray(fours).reshape(tiles, -1, LANES * 4),
        scales=_tiled(scales),
        sums=sums.reshape(tiles, LANES),
        biases=_tiled(bias),
    )


def _tiled(numbers: npt.NDArray[Any]) -> FloatArray:
    padded = np.pad(numbers.astype(np.float32), (0, -len(numbers) % LANES))
    return padded.reshape(-1, LANES)
