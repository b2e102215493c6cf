"""Puts the weights that a quantized graph implies into transformers' model."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from protos.bundle.manifest import Bundle
from tests.support.oracle import Oracle

PROJECTIONS = {"attn": "self_attn", "mlp": "mlp"}
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def dequantized(reference: Oracle, bundle: Path) -> Oracle:
    """A copy of the oracle whose products use the bundle's quantized weights, in float32.

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """

    def product(integers: np.ndarray, scales: np.ndarray) -> torch.nn.Module:
        weight = (integers * scales[..., None]).reshape(len(scales), -1)
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        made.weight = torch.nn.Parameter(torch.from_numpy(weight), requires_grad=False)
        return _Cut(made)

    return with_products(reference, bundle, product)


class _Cut(torch.nn.Module):
    """A product over whole blocks, the last of which the rows may not fill."""

    def __init__(self, product: torch.nn.Linear) -> None:
        super().__init__()
        self.product = product

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        missing = self.product.in_features - values.shape[-1]
        result: torch.Tensor = self.product(torch.nn.functional.pad(values, (0, missing)))
        return result


def with_products(
    reference: Oracle,
    bundle: Path,
    product: Callable[[np.ndarray, np.ndarray], torch.nn.Module],
) -> Oracle:
    """A copy of the oracle with other products in place of the language model's.

    Args:
        reference: The oracle of the bundle's checkpoint.
        bundle: Holds the quantized weights.
        product: Makes one of integers float32 [N, KB, block_size] and scales float32 [N, KB].

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """
    changed = copy.copy(reference)
    changed.model = copy.deepcopy(reference.model)
    graph = onnx.load(bundle / Bundle.open(bundle).manifest.graph.file)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    replaced = 0
    for node in graph.graph.node:
        if node.op_type == "MatMul":
            raise ValueError(f"{node.name} is not quantized")
        if node.op_type == "MatMulNBits":
            scales = arrays[node.input[2]]
            integers = _integers(node, arrays[node.input[1]], scales)
            names = _modules(node.name)
            widths = [len(changed.model.get_submodule(name).weight) for name in names]
            ends = np.cumsum(widths)[:-1]
            parts = zip(names, np.split(integers, ends), np.split(scales, ends), strict=True)
            for name, values, steps in parts:
                owner, _, leaf = name.rpartition(".")
                setattr(changed.model.get_submodule(owner), leaf, product(values, steps))
                replaced += 1
    if replaced != 7 * len(changed.model.model.language_model.layers) + 1:
        raise ValueError(f"{replaced} products are quantized")
    return changed


def _integers(node: Any, packed: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Float32 [N, KB, block_size] of a symmetric `MatMulNBits`; it packs low nibbles first."""
    bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
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
