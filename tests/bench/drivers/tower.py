"""A vision tower as an engine of `tests.bench.compare_towers`: its prefill is one image's pass.

    python -m tests.bench.drivers.tower KIND BUNDLE THREADS

KIND is a form of the ONNX tower (exact, fast, portable), or transformers' model in float32 or
bfloat16 (transformers, transformers-bf16).
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from protos.media.images import Grid
from tests.bench.drivers.protocol import serve
from vision_service.families.registry import family_of
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Members
from vision_service.towers.onnx_tower import FORMS, OnnxTower
from vision_service.towers.tower import BatchEncoder

PATCH_DIM = 1536
# Grids of the sizes that are measured: the nearest to a photograph's sides.
GRIDS = {432: Grid(1, 18, 24), 1024: Grid(1, 32, 32), 3072: Grid(1, 48, 64), 4096: Grid(1, 64, 64)}


class TowerEngine:
    """One tower, loaded."""

    def __init__(self, kind: str, bundle: Path, threads: int) -> None:
        self._kind = kind
        self._tower = load(kind, bundle, threads)

    def describe(self) -> str:
        """Name and version."""
        import onnxruntime

        if self._kind in FORMS:
            from kernels import library

            sets = library.instruction_set() if FORMS[self._kind][1] else "its own kernels"
            return f"{self._kind}, onnxruntime {onnxruntime.__version__}, {sets}"
        import torch
        import transformers

        return f"{self._kind} {transformers.__version__}, sdpa, torch {torch.__version__}"

    def prefill(self, tokens: int) -> float:
        """Seconds of one pass over an image of `tokens` patches."""
        grid = GRIDS[tokens]
        pixels = np.random.default_rng(0).uniform(-1, 1, (tokens, PATCH_DIM)).astype(np.float32)
        began = time.perf_counter()
        self._tower.encode([Patches(pixels, grid)])
        return time.perf_counter() - began

    def hold(self, batch: int, context: int) -> None:
        """A tower holds nothing."""

    def decode(self, tokens: int) -> list[float]:
        """A tower decodes nothing."""
        return []

    def drop(self) -> None:
        """A tower holds nothing."""


def load(kind: str, bundle: Path, threads: int) -> BatchEncoder:
    """The tower that a kind names."""
    if kind in FORMS:
        return OnnxTower.load(bundle, form=kind, threads=threads)
    import torch

    torch.set_num_threads(threads)
    return TransformersTower(bundle, "bfloat16" if kind.endswith("bf16") else "float32")


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
    serve(lambda: TowerEngine(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
