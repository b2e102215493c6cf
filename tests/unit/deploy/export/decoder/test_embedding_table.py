"""The embedding table reaches the bundle exactly as stored."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from deploy.export.checkpoint.weights import read_index
from deploy.export.decoder import embedding_table


def test_the_embedding_table_keeps_its_bit_patterns(tmp_path: Path) -> None:
    table = torch.randn(7, 4).to(torch.bfloat16)
    save_file({"table": table}, tmp_path / "model.safetensors")
    stored = read_index(tmp_path)["table"]
    embedding_table.write(stored, tmp_path / "decoder", lambda size: None)
    raw = np.fromfile(tmp_path / "decoder" / "embeddings.bin", np.uint16)
    assert (raw == table.view(torch.uint16).numpy().ravel()).all()
