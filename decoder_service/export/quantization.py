"""Block-wise weight quantization, one product at a time.

onnxruntime-genai's builder would turn the whole float32 graph into one protobuf first, which takes
16 GB for a 4B model. Here every weight is quantized as soon as its layer is read, by the same
kernels, so that memory holds the quantized weights and one slice in float32.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_matmul_8bits

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
    columns, rows = weight.shape
    blocks = -(-rows // block_size)
    packed = np.zeros((columns, blocks, block_size * bits // 8), np.uint8)
    scales = np.zeros((columns, blocks), np.float32)
    kernel = quantize_matmul_4bits if bits == 4 else quantize_matmul_8bits
    # The kernel fills zero points in any case; symmetric quantization has no use for them.
    ignored = np.zeros((columns, -(-blocks * bits // 8)), np.uint8)
    for begin in range(0, columns, COLUMNS):
        end = min(begin + COLUMNS, columns)
        part = np.zeros((blocks * block_size, end - begin), np.float32)
        part[:rows] = weight[begin:end].T.to(torch.float32).numpy()
        kernel(
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
