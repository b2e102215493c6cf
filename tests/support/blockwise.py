"""The arithmetic of `tandem.MatMulInt4` in NumPy, to stand in transformers' model."""

import numpy as np
import torch


class BlockwiseLinear(torch.nn.Module):
    """What the operator does in place of one linear layer, in NumPy."""

    def __init__(self, integers: np.ndarray, scales: np.ndarray) -> None:
        super().__init__()
        self.integers, self.scales = integers.astype(np.float64), scales

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        columns, blocks, block_size = self.integers.shape
        rows = values.detach().numpy()
        padding = blocks * block_size - rows.shape[-1]
        padded = np.pad(rows.reshape(-1, rows.shape[-1]), ((0, 0), (0, padding)))
        padded = padded.reshape(-1, blocks, block_size)
        peaks = np.abs(padded).max(-1, keepdims=True)
        steps = np.divide(np.float32(127), peaks, where=peaks > 0, out=np.zeros_like(peaks))
        rounded = np.rint(padded * steps).astype(np.float64)
        sums = np.einsum("rbk,nbk->rnb", rounded, self.integers).astype(np.float32)
        scaled = sums * (self.scales * (peaks / np.float32(127)).transpose(0, 2, 1))
        return torch.from_numpy(scaled.sum(-1).reshape(*rows.shape[:-1], columns))
