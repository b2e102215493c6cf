"""ONNX towers of the tiny checkpoints, written beside copies of their bundles' vision folders."""

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from deploy.export.checkpoint.weights import read_index
from deploy.export.vision import writer
from protos.media.images import Grid
from tests.support import bundles
from tests.support.oracle import Float32Array


@functools.cache
def bundle(name: str) -> Path:
    """A folder with `vision/` of a tiny checkpoint, all graphs of its tower in it."""
    root = Path(tempfile.mkdtemp(prefix=f"tandem-tower-{name}-"))
    shutil.copytree(bundles.bundle(name) / "vision", root / "vision")
    writer.write(read_index(root / "vision"), config(name), root / "vision", lambda _: None)
    return root


def config(name: str) -> dict[str, Any]:
    """The vision_config of a tiny checkpoint."""
    found: dict[str, Any] = json.loads(
        (bundles.bundle(name) / "vision" / "config.json").read_text()
    )
    return found


def random_pixels(config: dict[str, Any], grid: Grid, seed: int) -> Float32Array:
    """Patches [P, D] in the range of normalized pixels."""
    volume = config["temporal_patch_size"] * config["patch_size"] ** 2
    shape = (grid.patches, config["in_channels"] * volume)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
