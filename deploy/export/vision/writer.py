"""Writes all forms of the tower's graph and the data files they share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.decoder.kernel_graphs import DataFile
from deploy.export.progress import Advance
from deploy.export.vision import tower_graph
from deploy.export.vision.builder import MICROSOFT, Constants
from deploy.export.vision.forms import Portable
from deploy.export.vision.tower_graph import TowerConfig

DATA_NAME = "tower.onnx.data"
PORTABLE_NAME = "tower.onnx"

FloatArray = npt.NDArray[np.float32]


def write(
    tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], folder: Path, advance: Advance
) -> None:
    """Writes the graphs and their data.

    Args:
        tensors: The tower's tensors by their names within it.
        config: The checkpoint's vision_config.
        folder: The bundle's vision folder.
        advance: Called with the bytes written.

    Raises:
        ExportError: the tower is of a kind that this release does not know.
    """
    shapes = TowerConfig.from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    with DataFile(folder / DATA_NAME, advance) as file:
        constants = Constants(file)
        for name in sorted(tensors):
            constants.add(name, _as_multiplied(name, tensors[name], shapes))
    tower_graph.write(Portable(shapes, constants), shapes, folder / PORTABLE_NAME, {MICROSOFT: 1})


def _as_multiplied(name: str, tensor: StoredTensor, config: TowerConfig) -> FloatArray:
    """A tensor in float32, with a product's weight as [inputs, outputs]."""
    array: FloatArray = tensor.read().float().numpy()
    if name.removesuffix(".weight") not in config.products or name.endswith(".bias"):
        return array
    return np.ascontiguousarray(array.reshape(len(array), -1).T)
