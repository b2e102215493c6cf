"""How `tandem.MatMulInt4` holds a weight.

Sixteen outputs lie side by side, so that one 64-byte register holds four neighbouring inputs of
each of them, which is what an 8-bit dot product instruction takes. Two such registers share their
bytes: the low nibbles are four inputs, the high nibbles the four after them. A file that holds
this is mapped and multiplied as it lies; nothing is packed when a decoder starts.

    packed[tile, block, octet, 4 * lane + i]  low nibble:  weight[16 * tile + lane, 8 * octet + i]
                                              high nibble: ... 8 * octet + 4 + i]   (in the block)
    scales[tile, block, lane]

A nibble q stands for (q - 8) * scale. Outputs are padded to whole tiles and inputs to whole blocks
with weights of zero.

Tests: tests/unit/decoder/test_kernels.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

DOMAIN = "tandem"
MATMUL = "MatMulInt4"
LANES = 16  # outputs of a tile
OCTET = 8  # inputs in a byte row: four in the low nibbles, four in the high ones
ZERO = 0x88


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedWeight:
    """A [N, K] weight, T = ceil(N / 16) tiles of KB = ceil(K / block_size) blocks."""

    values: npt.NDArray[np.uint8]  # [T, KB, block_size / 8, 64]
    scales: npt.NDArray[np.float32]  # [T, KB, 16]


def pack(values: npt.NDArray[np.uint8], scales: npt.NDArray[np.float32]) -> PackedWeight:
    """Turns the weight of a `MatMulNBits` of 4 bits into this layout; the numbers stay the same.

    Args:
        values: uint8 [N, KB, block_size / 2], two neighbouring inputs in a byte, low nibble first.
        scales: float32 [N, KB].
    """
    outputs, blocks, half = values.shape
    tiles = -(-outputs // LANES)
    padded = np.full((tiles * LANES, blocks, half), ZERO, np.uint8)
    padded[:outputs] = values
    # [tile, lane, block, octet, four bytes of two nibbles each]
    split = padded.reshape(tiles, LANES, blocks, half // 4, 4)
    quads = np.empty((tiles, blocks, half // 4, LANES, 4), np.uint8)
    for quad in range(4):  # inputs 0..3 of an octet lie in its bytes 0 and 1, 4..7 in 2 and 3
        low, high = (split[..., half_octet + quad // 2] for half_octet in (0, 2))
        shift = 4 * (quad % 2)
        made = (low >> shift) & 15 | ((high >> shift) & 15) << 4
        quads[..., quad] = made.transpose(0, 2, 3, 1)
    widened = np.zeros((tiles * LANES, blocks), np.float32)
    widened[:outputs] = scales.reshape(outputs, blocks)
    return PackedWeight(
        values=quads.reshape(tiles, blocks, half // 4, LANES * 4),
        scales=np.ascontiguousarray(widened.reshape(tiles, LANES, blocks).transpose(0, 2, 1)),
    )
