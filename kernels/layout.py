"""How `tandem.MatMulInt4` holds a weight.

Thirty-two outputs lie side by side, so that one 64-byte register holds four neighbouring inputs of
sixteen of them, which is what an 8-bit dot product instruction takes. Two such registers share
their bytes: the low nibbles are four inputs, the high nibbles the four after them. A file that
holds this is mapped and multiplied as it lies; nothing is packed when a decoder starts.

    packed[tile, block, octet, 4 * out + i]  low nibble:  weight[32 * tile + out, 8 * octet + i]
                                             high nibble: ... 8 * octet + 4 + i]    (in the block)
    scales[tile, block, out]

A nibble q stands for (q - 8) * scale. Outputs are padded to whole tiles and inputs to whole blocks
with weights of zero. A gated product's tile holds 16 gates and then their 16 ups.

Tests: tests/unit/kernels/test_operators.py computes with it, test_layout.py compares constants.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DOMAIN = "tandem"
MATMUL = "MatMulInt4"
ATTENTION = "Attention"

# The same numbers stand in native/products/matmul.h and native/attention/attention.h, whose code
# they shape.
TILE_OUTPUTS = 32
BLOCK_SIZE_STEP, MOST_BLOCK_SIZE = 16, 256  # inputs that share one scale
HEAD_DIM_STEP, MOST_HEAD_DIM = 16, 256
MOST_GROUPED_HEADS = 16  # query heads of one KV head

OCTET = 8  # inputs in a byte row: four in the low nibbles, four in the high ones
ZERO = 0x88  # two nibbles of 8, which stand for 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """A [N, K] weight, T = ceil(N / 32) tiles of KB = ceil(K / block_size) blocks."""

    values: npt.NDArray[np.uint8]  # [T, KB, block_size / 8, 128]
    scales: npt.NDArray[np.float32]  # [T, KB, 32]


def pack(values: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32]) -> PackedWeight:
    """Turns the weight of a `MatMulNBits` of 4 bits into this layout; the numbers stay the same.

    Args:
        values: uint8 [N, KB, block_size / 2], two neighbouring inputs in a byte, low nibble first.
        scales: float32 [N, KB].
    """
    outputs, blocks, half = values.shape
    octets = half * 2 // OCTET
    padded = _padded(values, TILE_OUTPUTS, ZERO)
    tiles = len(padded) // TILE_OUTPUTS
    split = padded.reshape(tiles, TILE_OUTPUTS, blocks, octets, 4)  # four bytes of two inputs each
    quads = np.empty((tiles, blocks, octets, TILE_OUTPUTS, 4), np.uint8)
    for index in range(4):  # inputs 0..3 of an octet lie in its bytes 0 and 1, 4..7 in 2 and 3
        low, high = split[..., index // 2], split[..., 2 + index // 2]
        shift = 4 * (index % 2)
        made = (low >> shift) & 15 | ((high >> shift) & 15) << 4
        quads[..., index] = made.transpose(0, 2, 3, 1)
    widened = _padded(scales.reshape(outputs, blocks), TILE_OUTPUTS, 0)
    return PackedWeight(
        values=quads.reshape(tiles, blocks, octets, TILE_OUTPUTS * 4),
        scales=np.ascontiguousarray(
            widened.reshape(tiles, TILE_OUTPUTS, blocks).transpose(0, 2, 1)
        ),
    )


def pack_gated(values: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32]) -> PackedWeight:
    """`pack` for gate and up joined, [2 * N, ...] with the gates first, for a gated product."""
    width = len(values) // 2
    return pack(
        _interleaved(values[:width], values[width:], ZERO),
        _interleaved(scales[:width], scales[width:], 0),
    )


def _interleaved(gate: npt.NDArray[Any], up: npt.NDArray[Any], padding: int) -> npt.NDArray[Any]:
    """Rows of both in turn, 16 of each."""
    half = TILE_OUTPUTS // 2
    parts = [_padded(rows, half, padding).reshape(-1, half, *rows.shape[1:]) for rows in (gate, up)]
    return np.stack(parts, axis=1).reshape(-1, *gate.shape[1:])


def _padded(rows: npt.NDArray[Any], multiple: int, padding: int) -> npt.NDArray[Any]:
    missing = -len(rows) % multiple
    if not missing:
        return rows
    return np.concatenate([rows, np.full((missing, *rows.shape[1:]), padding, rows.dtype)])
