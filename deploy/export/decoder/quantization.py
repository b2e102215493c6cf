"""Block-wise weight quantization, one product at a time.

onnxruntime-genai's builder would turn the whole float32 graph into one protobuf first, which takes
16 GB for a 4B model. Here every weight is quantized as soon as its layer is read, so that memory
holds the quantized weights and one slice in float32.

Four bits are few enough that a block's scale is searched: mapping the largest weight to the end of
the range, as the builder does, is not what loses least. Of several steps finer and coarser than
that, each with the scale that fits its integers best, the one with the least squared error is
kept; some 10 % less error at no cost while running.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_8bits

# Steps tried, as shares of the one that maps a block's largest weight to the end of the range.
# What they leave is within 2 % of what 80 steps leave, for normal and heavier-tailed weights.
STEPS = (1.0, 1 / 1.06, 1 / 1.12, 1 / 1.18, 1 / 1.24, 1 / 1.32, 1 / 1.4, -8 / 7)
# Weights searched at once; they and what is made of them stay in a core's cache.
SEARCHED = 128 * 1024
# Output columns quantized together; bounds the float32 copy of a 152k-row head to some 170 MB.
COLUMNS = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedWeight:
    """A [N, K] weight as `MatMulNBits` takes it, symmetric, KB = ceil(K / block_size)."""

    packed: npt.NDArray[np.uint8]  # [N, KB, block_size * bits / 8]
    scales: npt.NDArray[np.float32]  # [N, KB]
    rows: int  # K
    columns: int  # N


def quantize(weight: torch.Tensor, *, bits: int, block_size: int) -> QuantizedWeight:
    """Quantizes a linear layer's weight.

    Args:
        weight: [N, K] as torch.nn.Linear holds it, any floating dtype.
        bits: 4 or 8.
        block_size: Neighbouring weights of one output that share a scale.
    """
    if bits == 8:
        return _quantize8(weight, block_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # pieces fit a core's cache; waking others for them only costs
    try:
        return _quantize4(weight, block_size)
    finally:
        torch.set_num_threads(threads)


def _quantize4(weight: torch.Tensor, block_size: int) -> QuantizedWeight:
    columns, rows = weight.shape
    blocks = -(-rows // block_size)
    packed = np.empty((columns, blocks, block_size // 2), np.uint8)
    scales = np.empty((columns, blocks), np.float32)
    step = max(1, SEARCHED // (blocks * block_size))
    for begin in range(0, columns, step):
        end = min(begin + step, columns)
        part = torch.zeros((end - begin, blocks * block_size))
        part[:, :rows] = weight[begin:end]
        values, found = search_scales(part.reshape(end - begin, blocks, block_size))
        nibbles = (values + 8).to(torch.uint8)
        packed[begin:end] = (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).numpy()
        scales[begin:end] = found.numpy()
    return QuantizedWeight(packed=packed, scales=scales, rows=rows, columns=columns)


def search_scales(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers in [-8, 7] and scales with little squared error.

    For given integers q the best scale of weights w is <w, q> / <q, q>, and leaves the error
    <w, w> - <w, q>**2 / <q, q>; so the step whose second term is largest wins.

    Args:
        blocks: float32 [..., block_size].

    Returns:
        The integers as float32, like `blocks`, and scales float32 [...].
    """
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    inverse = torch.where(peak == 0, torch.zeros_like(peak), -8 / peak)
    best = torch.full_like(peak, -1)
    values, scales = torch.zeros_like(blocks), torch.zeros_like(peak)
    for step in STEPS:
        tried = (blocks * (inverse / step)).round_().clamp_(-8, 7)
        along = (blocks * tried).sum(-1, keepdim=True)
        square = (tried * tried).sum(-1, keepdim=True).clamp_(min=1)
        gain = along * along / square
        better = gain > best
        best = torch.where(better, gain, best)
        values = torch.where(better, tried, values)
        scales = torch.where(better, along / square, scales)
    return values, scales[..., 0]


def _quantize8(weight: torch.Tensor, block_size: int) -> QuantizedWeight:
    columns, rows = weight.shape
    blocks = -(-rows // block_size)
    packed = np.zeros((columns, blocks, block_size), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    # The kernel fills zero points in any case; symmetric quantization has no use for them.
    ignored = np.zeros((columns, blocks), np.uint8)
    for begin in range(0, columns, COLUMNS):
        end = min(begin + COLUMNS, columns)
        part = np.zeros((blocks * block_size, end - begin), np.float32)
        part[:rows] = weight[begin:end].T.to(torch.float32).numpy()
        quantize_matmul_8bits(
            packed[begin:end],
            part,
            scales[begin:end],
            ignored[begin:end],
            block_size,
            end - begin,
            rows,
            True,
        )
    return QuantizedWeight(packed=packed, scales=scales, rows=rows, columns=columns)
