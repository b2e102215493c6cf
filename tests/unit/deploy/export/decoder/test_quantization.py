"""Quantizers against plain NumPy: packing, scales, and what the search is worth."""

import numpy as np
import pytest
import torch

from deploy.export.decoder import quantization
from deploy.export.decoder.quantization import QuantizedWeight, quantize, search_scales

SHAPES = [(5, 32), (7, 40), (3, 130), (1, 1)]  # columns, rows


def weights(columns: int, rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(columns * 1000 + rows)
    return torch.randn(columns, rows, generator=generator)


def unpacked(found: QuantizedWeight, bits: int) -> np.ndarray:
    """The weights that `MatMulNBits` computes with, [N, K]."""
    if bits == 4:
        nibbles = np.stack([found.packed & 15, found.packed >> 4], axis=-1)
        integers = nibbles.reshape(*found.scales.shape, -1).astype(np.float32) - 8
    else:
        integers = found.packed.astype(np.float32) - 128
    whole: np.ndarray = (integers * found.scales[..., None]).reshape(found.columns, -1)
    return whole[:, : found.rows]


def plain(blocks: np.ndarray) -> np.ndarray:
    """4-bit blocks whose largest weight is mapped to -8, without any search."""
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = peak / -8
    restored: np.ndarray = np.clip(np.rint(blocks / scales), -8, 7) * scales
    return restored


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize(("bits", "most"), [(4, 0.16), (8, 0.01)])
def test_a_restored_weight_is_close(
    shape: tuple[int, int], block_size: int, bits: int, most: float
) -> None:
    weight = weights(*shape)
    found = quantize(weight, bits=bits, block_size=block_size)
    blocks = -(-shape[1] // block_size)
    assert found.packed.shape == (shape[0], blocks, block_size * bits // 8)
    assert found.scales.shape == (shape[0], blocks)
    error = unpacked(found, bits) - weight.numpy()
    assert np.sqrt((error**2).mean()) < most


@pytest.mark.parametrize("block_size", [32, 128])
def test_searched_scales_lose_a_tenth_less_than_mapping_the_largest_weight(block_size: int) -> None:
    blocks = weights(4096, block_size)
    values, scales = search_scales(blocks)
    error = ((values * scales[:, None] - blocks) ** 2).sum()
    before = ((plain(blocks.numpy()) - blocks.numpy()) ** 2).sum()
    assert float(error) < 0.92 * before
    assert values.min() >= -8
    assert values.max() <= 7


def test_no_single_block_loses_more_than_without_the_search() -> None:
    blocks = weights(512, 32)
    values, scales = search_scales(blocks)
    error = ((values * scales[:, None] - blocks) ** 2).sum(-1).numpy()
    before = ((plain(blocks.numpy()) - blocks.numpy()) ** 2).sum(-1)
    assert (error <= before * (1 + 1e-5)).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_stay_zeros(bits: int) -> None:
    found = quantize(torch.zeros(3, 40), bits=bits, block_size=32)
    assert not unpacked(found, bits).any()


def test_threads_are_as_before_the_search() -> None:
    before = torch.get_num_threads()
    quantize(weights(4, 32), bits=4, block_size=32)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("shape", [(5, 64), (3, 75), (1, 7)])
def test_quantized_weights_lie_within_half_a_step(bits: int, shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    made = quantization.quantize(weight, bits=bits, block_size=32)
    if bits == 4:
        values = np.stack([made.packed & 15, made.packed >> 4], -1).astype(np.float32) - 8
    else:
        values = made.packed.astype(np.float32) - 128
    blocked = values.reshape(*made.scales.shape, 32) * made.scales[..., None]
    found = blocked.reshape(shape[0], -1)[:, : shape[1]]
    steps = np.repeat(np.abs(made.scales), 32, axis=1)[:, : shape[1]]
    # The largest value of a block's other sign is clipped by one step at most.
    assert (np.abs(found - weight.numpy()) <= steps * 1.001).all()
    assert (np.abs(found - weight.numpy()) <= steps * 0.501).mean() > 0.9


def test_quantizing_in_slices_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(70, 40, generator=torch.Generator().manual_seed(1))
    whole = quantization.quantize(weight, bits=4, block_size=16)
    monkeypatch.setattr(quantization, "COLUMNS", 32)
    sliced = quantization.quantize(weight, bits=4, block_size=16)
    assert (whole.packed == sliced.packed).all()
    assert (whole.scales == sliced.scales).all()
