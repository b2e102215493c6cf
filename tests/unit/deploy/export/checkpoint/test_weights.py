"""Weights are read as safetensors reads them, or refused by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deploy.export.checkpoint import weights
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
