"""The tower's weights reach the bundle exactly as stored."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from deploy.export.checkpoint.weights import read_index
from deploy.export.vision import weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def test_the_tower_is_copied_bit_for_bit(tmp_path: Path) -> None:
    tower = {f"model.visual.{i}": torch.randn(i + 1, 3).to(DTYPES[i % 3]) for i in range(5)}
    save_file({**tower, "lm_head.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    index = read_index(tmp_path)
    chosen = {str(i): index[f"model.visual.{i}"] for i in range(5)}
    copied: list[int] = []
    weights.write(chosen, {"depth": 3}, tmp_path / "vision", copied.append)
    found = load_file(tmp_path / "vision" / "model.safetensors")
    assert sorted(found) == sorted(chosen)
    for name, tensor in found.items():
        assert tensor.dtype == tower[f"model.visual.{name}"].dtype
        assert torch.equal(tensor, tower[f"model.visual.{name}"])
    assert sum(copied) == sum(tensor.size for tensor in chosen.values())
