"""Puts the weights that a quantized graph implies into transformers' model."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from protos.bundle import Bundle
from tests.support.oracle import Oracle

PROJECTIONS = {"attn": "self_attn", "mlp": "mlp"}
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}


def dequantized(reference: Oracle, bundle: Path) -> Oracle:
    """A copy of the oracle whose products use the bundle's quantized weights, in float32.

    Raises:
        ValueError: the graph leaves a product of the language model in floating point.
    """
    changed = copy.copy(reference)
    changed.model = copy.deepcopy(reference.model)
    # The graph quantizes the head but not the embedding table, tied or not.
    head = changed.model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    graph = onnx.load(bundle / Bundle.open(bundle).manifest.graph.file)
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    replaced = 0
    for node in graph.graph.node:
        if node.op_type == "MatMul":
            raise ValueError(f"{node.name} is not quantized")
        if node.op_type == "MatMulNBits":
            weight = _weight(node, arrays[node.input[1]], arrays[node.input[2]])
            modules = [changed.model.get_submodule(name) for name in _modules(node.name)]
            ends = np.cumsum([len(module.weight) for module in modules])
            for module, rows in zip(modules, np.split(weight, ends[:-1]), strict=True):
                module.weight.data = torch.from_numpy(rows.copy())
                replaced += 1
    if replaced != 7 * len(changed.model.model.language_model.layers) + 1:
        raise ValueError(f"{replaced} products are quantized")
    return changed


def _weight(node: Any, packed: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """[N, K] float32 of a symmetric `MatMulNBits`; its packing is low nibble first."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if attributes["bits"] == 4:
        values = np.stack([packed & 15, packed >> 4], axis=-1).astype(np.float32) - 8
    else:
        values = packed.astype(np.float32) - 128
    columns, blocks = scales.shape
    blocked = values.reshape(columns, blocks, attributes["block_size"]) * scales[..., None]
    return np.ascontiguousarray(blocked.reshape(columns, -1)[:, : attributes["K"]])


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
