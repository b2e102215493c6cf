"""Weights are read as safetensors reads them, or refused by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deploy.export.checkpoint import weights

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_tensor_is_read_as_safetensors_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = {"a": torch.randn(3, 5).to(dtype), "b": torch.zeros(0, 2, dtype=dtype)}
    save_file(stored, tmp_path / "model.safetensors")
    found = weights.read_index(tmp_path)
    for name, tensor in stored.items():
        assert found[name].read().dtype == dtype
        assert torch.equal(found[name].read(), tensor)


def test_integers_are_told_from_what_can_be_read(tmp_path: Path) -> None:
    stored = {"scale": torch.ones(2, dtype=torch.int8), "a": torch.ones(2)}
    save_file(stored, tmp_path / "model.safetensors")
    readable, others = weights.split(weights.read_index(tmp_path))
    assert (list(readable), list(others)) == (["a"], ["scale"])
    assert "scale is stored as I8" in weights.unsupported("scale", others["scale"].dtype)
