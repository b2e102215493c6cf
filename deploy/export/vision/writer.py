"""Writes all forms of the tower's graph and the data files they share."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.decoder.kernel_products import DataFile
from deploy.export.progress import Advance
from deploy.export.vision import packing, tower_graph
from deploy.export.vision.builder import MICROSOFT, Constants
from deploy.export.vision.forms import FLOAT_PARTS, Exact, Fast, Portable, float_name
from deploy.export.vision.tower_graph import TowerConfig
from kernels import float_layout, layout

DATA_NAME = "tower.onnx.data"  # float32, as ONNX's own operators read it
FLOATS_NAME = "tower.float.onnx.data"  # the products of the exact form, and the fast one's mergers
PACKED_NAME = "tower.fast.onnx.data"  # the fast form's products
PORTABLE_NAME = "tower.onnx"
EXACT_NAME = "tower.exact.onnx"
FAST_NAME = "tower.fast.onnx"
NAMES = (PORTABLE_NAME, EXACT_NAME, FAST_NAME, DATA_NAME, FLOATS_NAME, PACKED_NAME)

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
    with DataFile(folder / FLOATS_NAME, advance) as file:
        floats = Constants(file)
        _pack_floats(tensors, shapes, floats)
    with DataFile(folder / PACKED_NAME, advance) as file:
        packed = Constants(file)
        packing.pack(tensors, config, packed)
    domains = {MICROSOFT: 1, layout.DOMAIN: 1}
    portable = Portable(shapes, constants)
    tower_graph.write(portable, shapes, folder / PORTABLE_NAME, {MICROSOFT: 1})
    tower_graph.write(Exact(shapes, constants, floats), shapes, folder / EXACT_NAME, domains)
    fast = Fast(shapes, constants, floats, packed)
    tower_graph.write(fast, shapes, folder / FAST_NAME, domains)


def expected_bytes(tensors: Mapping[str, StoredTensor]) -> int:
    """About how much `write` writes: every number twice in float32, and nearly all in a byte."""
    return sum(9 * math.prod(tensor.shape) for tensor in tensors.values())


def _as_multiplied(name: str, tensor: StoredTensor, config: TowerConfig) -> FloatArray:
    """A tensor in float32, with a product's weight as [inputs, outputs]."""
    array = _float32(tensor)
    if name.removesuffix(".weight") not in config.products or name.endswith(".bias"):
        return array
    return np.ascontiguousarray(array.reshape(len(array), -1).T)


def _pack_floats(
    tensors: Mapping[str, StoredTensor], config: TowerConfig, constants: Constants
) -> None:
    """The products' weights as Tandem's float32 operator reads them, and the norms before them."""
    for name in config.products:
        weight, bias = (_float32(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        made = float_layout.pack(weight.reshape(len(weight), -1), bias)
        for part in FLOAT_PARTS:
            constants.add(float_name(name, part), getattr(made, part))
    _add_norms(tensors, (*config.norms, *config.merger_norms), constants)


def _add_norms(
    tensors: Mapping[str, StoredTensor], names: Iterable[str], constants: Constants
) -> None:
    """Weights and biases of norms, [2, K]."""
    for name in names:
        parts = [_float32(tensors[f"{name}.{part}"]) for part in ("weight", "bias")]
        constants.add(name, np.stack(parts))


def _float32(tensor: StoredTensor) -> FloatArray:
    array: FloatArray = tensor.read().float().numpy()
    return array
