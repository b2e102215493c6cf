"""A vision tower as an engine of `tests.bench.compare_towers`: its prefill is one image's pass.

    python -m tests.bench.drivers.tower KIND BUNDLE THREADS

KIND is a form of the ONNX tower (exact, fast, portable), or transformers' model in float32 or
bfloat16 (transformers, transformers-bf16).
"""

import sys
import time
from pathlib import Path

import numpy as np

from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from tests.bench.drivers.protocol import serve
from vision_service.jobs import Patches
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

    from vision_service.towers.torch_tower import TorchTower

    dtype = "bfloat16" if kind.endswith("bf16") else "float32"
    return TorchTower.load(Bundle.open(bundle), threads=threads, dtype=dtype)


if __name__ == "__main__":
    serve(lambda: TowerEngine(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
