"""Puts the weights that a quantized graph implies into transformers' model.

Quantization has two costs: weights become integers, and accuracy level 4 rounds activations to
int8 as well. With the graph's own weights in transformers' model the first is on both sides, and
what is left of a difference is the arithmetic.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

FloatArray = npt.NDArray[np.float32]
# Makes a product of integers float32 [N, KB, block_size] and scales float32 [N, KB].
Product = Callable[[FloatArray, FloatArray], torch.nn.Module]

PROJECTIONS = {"attn": "self_attn", "mlp": "mlp"}
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def float_product(integers: FloatArray, scales: FloatArray) -> torch.nn.Module:
    """The product that integers and scales imply, in float32."""
    weight = (integers * scales[..., None]).reshape(len(scales), -1)
    made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)
    return _Cut(made)


class _Cut(torch.nn.Module):
    """A product over whole blocks, the last of which the rows may not fill."""

    def __init__(self, product: torch.nn.Linear) -> None:
        super().__init__()
        self.product = product

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        missing = self.product.in_features - values.shape[-1]
        result: torch.Tensor = self.product(torch.nn.functional.pad(values, (0, missing)))
        return result


def replace_products(model: Any, file: Path, product: Product = float_product) -> None:
    """Replaces every product of the model's language model by one made of the graph's weights.

    Args:
        model: transformers' model; changed in place.
        file: A bundle's portable graph, quantized.
        product: What to replace them by.

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """
    replaced = 0
    for node in ir.load(file).graph:
        if node.op_type == "MatMul":
            raise ValueError(f"{node.name} is not quantized")
        if node.op_type == "MatMulNBits":
            replaced += _replace(model, node, product)
    if replaced != 7 * len(model.model.language_model.layers) + 1:
        raise ValueError(f"{replaced} products are quantized")


def _replace(model: Any, node: ir.Node, product: Product) -> int:
    """Replaces what one node joins; returns how many products that were."""
    names = _modules(node.name or "")
    scales = _constant(node, 2)
    widths = [len(model.get_submodule(name).weight) for name in names]
    ends = np.cumsum(widths)[:-1]
    integers = _integers(_constant(node, 1), scales, bits=node.attributes.get_int("bits"))
    parts = zip(names, np.split(integers, ends), np.split(scales, ends), strict=True)
    for name, values, steps in parts:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, product(values, steps))
    return len(names)


def _constant(node: ir.Node, index: int) -> npt.NDArray[Any]:
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise ValueError(f"{node.name} has no constant weight")
    array: npt.NDArray[Any] = value.const_value.numpy()
    return array


def _integers(packed: npt.NDArray[np.uint8], scales: FloatArray, *, bits: int) -> FloatArray:
    """Float32 [N, KB, block_size] of a symmetric `MatMulNBits`; it packs low nibbles first."""
    if bits == 4:
        values = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
    else:
        values = packed.astype(np.float32) - 128
    return np.ascontiguousarray(values.reshape(*scales.shape, -1))


def _modules(node_name: str) -> list[str]:
    """ "/model/layers.3/attn/o_proj/MatMul": ["model.language_model.layers.3.self_attn.o_proj"]."""
    parts = node_name.strip("/").split("/")
    if parts[0] == "lm_head":
        return ["lm_head"]
    _, layer, block, projection, _ = parts
    return [
        f"model.language_model.{layer}.{PROJECTIONS[block]}.{name}"
        for name in JOINED.get(projection, (projection,))
    ]
