"""A vision tower as an engine of `tests.bench.compare_towers`, in our own environment.

    python -m tests.bench.drivers.tower KIND BUNDLE INPUTS THREADS

KIND is a form of the ONNX tower (exact, fast, portable), the portable graph in a session with ONNX
Runtime's defaults (onnxruntime), or transformers' model in float32 or bfloat16 (transformers,
transformers-bf16).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from protos.media.grid_inputs import GridSettings
from protos.media.images import Grid
from tests.bench.drivers.protocol import serve
from tests.bench.drivers.towers import Given, TowerDriver
from vision_service.families.registry import family_of
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Members
from vision_service.towers.onnx_tower import FORMS, OnnxTower
from vision_service.towers.tower import BatchEncoder

PATCH_DIM = 1536
STOCK = "onnxruntime"


class TowerEngine(TowerDriver):
    """One tower in our own environment, loaded."""

    def __init__(self, kind: str, bundle: Path, inputs: Path, threads: int) -> None:
        super().__init__(inputs)
        self._kind = kind
        self._tower = load(kind, bundle, threads)

    def describe(self) -> str:
        """Name and version."""
        if self._kind == STOCK:
            return f"onnxruntime {ort.__version__}, default options, the portable graph"
        if self._kind in FORMS:
            from kernels import library

            sets = library.instruction_set() if FORMS[self._kind][1] else "its own kernels"
            return f"{self._kind}, onnxruntime {ort.__version__}, {sets}"
        import torch
        import transformers

        return f"{self._kind} {transformers.__version__}, sdpa, torch {torch.__version__}"

    def encode(self, prepared: Given) -> FloatArray:
        """See `TowerDriver.encode`."""
        (features,) = self._tower.encode([Patches(prepared.pixels, Grid(*prepared.grid))])
        return features


def load(kind: str, bundle: Path, threads: int) -> BatchEncoder:
    """The tower that a kind names."""
    if kind in FORMS:
        return OnnxTower.load(bundle, form=kind, threads=threads)
    if kind == STOCK:
        return _stock(bundle, threads)
    import torch

    torch.set_num_threads(threads)
    return TransformersTower(bundle, "bfloat16" if kind.endswith("bf16") else "float32")


def _stock(bundle: Path, threads: int) -> BatchEncoder:
    """A session as ONNX Runtime's users make it: packed weights, its arena, nothing of ours."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    graph = bundle / FORMS["portable"][0]
    session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    config = json.loads((bundle / "vision" / "config.json").read_text())
    return OnnxTower(session, GridSettings.from_config(config), computes_all=True)


class TransformersTower:
    """transformers' own model with sdpa, as its users run it."""

    computes_all = True

    def __init__(self, bundle: Path, dtype: str) -> None:
        import torch
        from safetensors.torch import load_file

        self._family = family_of("qwen3_vl")  # builds transformers' class, with sdpa
        weights = load_file(bundle / "vision" / "model.safetensors")
        model = self._family.build(json.loads((bundle / "vision" / "config.json").read_text()))
        model.load_state_dict(weights, assign=True)
        self._dtype = getattr(torch, dtype)
        self._model = model.to(self._dtype).eval()

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """See `BatchEncoder.encode`; every level of the one image."""
        import torch

        ((pixels, grid),) = batch
        with torch.inference_mode():
            made = self._model(
                torch.from_numpy(pixels).to(self._dtype), grid_thw=torch.tensor([list(grid)])
            )
        return [np.stack([level.float().numpy() for level in self._family.levels(made)])]


if __name__ == "__main__":
    kind, bundle, inputs, threads = sys.argv[1:]
    serve(lambda: TowerEngine(kind, Path(bundle), Path(inputs), int(threads)))
