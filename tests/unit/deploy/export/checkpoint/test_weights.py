"""Reading, copying and quantizing weights piece by piece."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.export import tables
from deploy.export.checkpoint import weights
from deploy.export.decoder import quantization
from deploy.export.errors import ExportError

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_is_read_as_safetensors_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {"a": torch.randn(3, 5).to(dtype), "b": torch.zeros(0, 2, dtype=dtype)}
    save_file(stored, tmp_path / "model.safetensors")
    found = weights.read_index(tmp_path)
    for name, tensor in stored.items():
        assert found[name].read().dtype == dtype
        assert torch.equal(found[name].read(), tensor)


def test_integers_are_refused_by_name(tmp_path: Path) -> None:
    save_file({"scale": torch.ones(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match="scale is stored as I8"):
        weights.read_index(tmp_path)


def test_the_tower_is_copied_bit_for_bit(tmp_path: Path) -> None:
    tower = {f"model.visual.{i}": torch.randn(i + 1, 3).to(DTYPES[i % 3]) for i in range(5)}
    save_file({**tower, "lm_head.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    index = weights.read_index(tmp_path)
    chosen = {str(i): index[f"model.visual.{i}"] for i in range(5)}
    copied: list[int] = []
    tables.write_vision(chosen, {"depth": 3}, tmp_path / "vision", copied.append)
    found = load_file(tmp_path / "vision" / "model.safetensors")
    assert sorted(found) == sorted(chosen)
    for name, tensor in found.items():
        assert tensor.dtype == tower[f"model.visual.{name}"].dtype
        assert torch.equal(tensor, tower[f"model.visual.{name}"])
    assert sum(copied) == sum(tensor.size for tensor in chosen.values())


def test_the_embedding_table_keeps_its_bit_patterns(tmp_path: Path) -> None:
    table = torch.randn(7, 4).to(torch.bfloat16)
    save_file({"table": table}, tmp_path / "model.safetensors")
    stored = weights.read_index(tmp_path)["table"]
    tables.write_embeddings(stored, tmp_path / "decoder", lambda size: None)
    raw = np.fromfile(tmp_path / "decoder" / "embeddings.bin", np.uint16)
    assert (raw == table.view(torch.uint16).numpy().ravel()).all()


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
