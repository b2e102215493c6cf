"""How `tandem.MatMulFloat` holds a weight: float32, as its kernels read it.

Thirty-two outputs lie side by side, input after input. A file that holds this is mapped and
multiplied as it lies, by every instruction set.

    values[tile, input, lane] = weight[32 * tile + lane, input]

Outputs are padded to whole tiles and inputs to whole steps of 32 with weights of zero.

Tests: tests/unit/kernels/test_matmul_float.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MATMUL = "MatMulFloat"
# Limits and units that native/products/matmul_float.h states too.
LANES = 32
STEP = 32
MOST_INPUTS = 16384

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatWeight:
    """A weight [N, K] with its bias; T = ceil(N / 32) tiles, K padded to KP."""

    values: FloatArray  # [T, KP, 32]
    biases: FloatArray  # [T, 32]


def pack(weight: FloatArray, bias: FloatArray) -> FloatWeight:
    """Lays out a weight [N, K] and a bias [N]."""
    outputs, inputs = weight.shape
    padded = np.pad(weight, ((0, -outputs % LANES), (0, -inputs % STEP)))
    tiles = padded.reshape(-1, LANES, padded.shape[1]).transpose(0, 2, 1)
    return FloatWeight(
        values=np.ascontiguousarray(tiles, np.float32),
        biases=np.pad(bias.astype(np.float32), (0, -outputs % LANES)).reshape(-1, LANES),
    )
