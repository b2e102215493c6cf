"""The INT8 form of the two-lane graph's products.

INT4 weights win where reading them is what a step costs: few rows. With many rows arithmetic is,
and 8-bit integer products do about twice as much of it. A weight is int8 with one scale for each
output column; an activation is quantized per row, because one outlier token must not cost every
other token its precision:

    scale[row] = max(abs(x[row])) / 127        x8 = round(x / scale) + 128, uint8
    x @ w  ~=  scale[row] * (column_scale * ((x8 - 128) @ w8))

The scale of up's rows waits until after down, where the rows are narrower: down's own rounding is
relative to each row's largest value and does not see it.

Products of one input (queries, keys and values; gate and up) share its quantized form. Behind the
gathering of the wanted logit rows (the last MLP and the head) rows are few or none: those products
stay as they are, stored once for both graphs.

Unsigned activations beside signed weights are what MLAS multiplies fastest. On AVX2 without VNNI
its 16-bit sums saturate unless the session sets session.x64quantprecision.

Tests: tests/parity/test_wide_graph.py compares with the same arithmetic in NumPy.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch

from decoder_service.export import fusing, graph_values
from decoder_service.export.checkpoint import TEXT_PREFIX
from decoder_service.export.weights import StoredTensor

LIMIT = 127
ZERO_POINT = 128
TINY = 1e-30  # the least scale, so that a row of zeros divides by something
NAME = "/model/wide"
BLOCKS = {"attn": "self_attn", "mlp": "mlp"}
DOMAIN = "com.microsoft"

Reader = Callable[[], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnWeight:
    """A [K, N] weight in int8 with one float32 scale per column."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]


def quantize_columns(weight: torch.Tensor) -> ColumnWeight:
    """Quantizes a linear layer's weight, [N, K] of any floating dtype, symmetrically."""
    columns = weight.to(torch.float32)
    scales = columns.abs().amax(dim=1, keepdim=True) / LIMIT
    divisors = torch.where(scales > 0, scales, torch.ones_like(scales))
    values = torch.round(columns / divisors).to(torch.int8)
    return ColumnWeight(values=values.T.contiguous().numpy(), scales=scales[:, 0].numpy())


class LazyColumns:
    """A product's quantized weight, read from the checkpoint for each use.

    Both its parts are asked for one after the other while the file is written, so the last one
    read is kept.
    """

    def __init__(self, stored: StoredTensor) -> None:
        self._stored = stored

    @property
    def shape(self) -> tuple[int, int]:
        """K, N."""
        columns, rows = self._stored.shape
        return rows, columns

    def values(self) -> npt.NDArray[np.int8]:
        """int8 [K, N]."""
        return _read(self._stored).values

    def scales(self) -> npt.NDArray[np.float32]:
        """float32 [N]."""
        return _read(self._stored).scales


@functools.lru_cache(maxsize=1)
def _read(stored: StoredTensor) -> ColumnWeight:
    return quantize_columns(stored.read())


def to_int8(graph: ir.Graph, tensors: Mapping[str, StoredTensor]) -> list[ir.Value]:
    """Replaces every product before the gathering of the logit rows, in place.

    Args:
        graph: A two-lane graph.
        tensors: The checkpoint's tensors by name.

    Returns:
        The new weights, whose values are read from the checkpoint when asked for.
    """
    maker = _Maker(graph)
    for source, products in _by_input(graph).items():
        quantized = maker.quantized(source, products[0])
        for product in products:
            for name, output in _outputs(product).items():
                made = maker.product(product, name, quantized, tensors[tensor_name(name)])
                if name.endswith("/up_proj/MatMul"):
                    maker.wait(output, quantized)
                else:
                    made = maker.scaled(product, name, made, quantized)
                output.replace_all_uses_with(made)
            _remove(graph, product)
    _drop_weights(graph)
    return maker.weights


def tensor_name(node_name: str) -> str:
    """ "/model/layers.3/attn/q_proj/MatMul" is model.language_model.layers.3.self_attn.q_proj."""
    _, _, layer, block, projection, _ = node_name.split("/")
    return f"{TEXT_PREFIX}{layer}.{BLOCKS[block]}.{projection}.weight"


def _outputs(product: ir.Node) -> dict[str, ir.Value]:
    """What a product gives, by the name each has or would have as a product of its own.

    With many rows parting a joined product costs more than joining saves, so they part here.
    """
    layer, projection, kind = (product.name or "").rsplit("/", 2)
    if projection not in fusing.PARTS:
        return {product.name or "": product.outputs[0]}
    parts = [f"{layer}/{part}/{kind}" for part in fusing.PARTS[projection]]
    (use,) = product.outputs[0].uses()
    return dict(zip(parts, use.node.outputs, strict=True))


def _remove(graph: ir.Graph, product: ir.Node) -> None:
    parting = [use.node for use in product.outputs[0].uses()]
    graph.remove([*parting, product], safe=True)


def _by_input(graph: ir.Graph) -> dict[ir.Value, list[ir.Node]]:
    found: dict[ir.Value, list[ir.Node]] = {}
    gathered = _gathered(graph)
    for node in graph:
        source = node.inputs[0] if node.op_type in ("MatMul", "MatMulNBits") else None
        if source is not None and source not in gathered:
            found.setdefault(source, []).append(node)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Quantized:
    values: ir.Value  # uint8, like the activation
    scales: ir.Value  # float32 [..., 1]


class _Maker:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self.weights: list[ir.Value] = []
        self._one = graph_values.constant(graph, f"{NAME}/one", np.float32(1))
        self._zero_point = graph_values.constant(graph, f"{NAME}/zero_point", np.uint8(ZERO_POINT))
        self._inverse = graph_values.constant(graph, f"{NAME}/inverse", np.float32(1 / LIMIT))
        self._tiny = graph_values.constant(graph, f"{NAME}/tiny", np.float32(TINY))
        self._last = graph_values.constant(graph, f"{NAME}/last_axis", np.array([-1], np.int64))
        self._zero_points: ir.Value | None = None
        # Scales that a value still lacks, because it was made of a product that was not scaled.
        self._waiting: dict[ir.Value, ir.Value] = {}

    def quantized(self, source: ir.Value, before: ir.Node) -> _Quantized:
        """The activation in uint8 with a scale for each row, made just before a node."""
        name = f"{before.name}/input"
        peak = self._insert(before, "Abs", [source], f"{name}/Abs")
        peak = self._insert(before, "ReduceMax", [peak, self._last], f"{name}/ReduceMax")
        scaled = self._insert(before, "Mul", [peak, self._inverse], f"{name}/Mul")
        scales = self._insert(before, "Max", [scaled, self._tiny], f"{name}/Max")
        flat = self._insert(before, "Reshape", [scales, self._last], f"{name}/Reshape")
        points = self._row_zero_points(before, flat)
        values = self._insert(
            before, "QuantizeLinear", [source, flat, points], f"{name}/QuantizeLinear", axis=1
        )
        waiting = self._waiting.get(source)
        if waiting is not None:
            scales = self._insert(before, "Mul", [scales, waiting], f"{name}/Waiting")
        return _Quantized(values=values, scales=scales)

    def _row_zero_points(self, before: ir.Node, scales: ir.Value) -> ir.Value:
        """As many zero points as rows, made once: a scale per row wants a zero point per row."""
        if self._zero_points is None:
            count = self._insert(before, "Shape", [scales], f"{NAME}/Shape")
            point = ir.tensor(np.array([ZERO_POINT], np.uint8))
            self._zero_points = self._insert(
                before, "ConstantOfShape", [count], f"{NAME}/ConstantOfShape", value=point
            )
        return self._zero_points

    def product(
        self, before: ir.Node, name: str, source: _Quantized, stored: StoredTensor
    ) -> ir.Value:
        """The integer product of an activation with a weight, without the rows' scales."""
        weight = LazyColumns(stored)
        rows, columns = weight.shape
        values = self._weight(
            f"{name}/weight_int8", weight.values, ir.DataType.INT8, [rows, columns]
        )
        scales = self._weight(f"{name}/weight_scales", weight.scales, ir.DataType.FLOAT, [columns])
        inputs = [source.values, values, self._one, scales, self._zero_point]
        return self._insert(before, "MatMulIntegerToFloat", inputs, f"{name}/Integer", DOMAIN)

    def scaled(self, before: ir.Node, name: str, made: ir.Value, source: _Quantized) -> ir.Value:
        """A product times the rows' scales."""
        return self._insert(before, "Mul", [made, source.scales], f"{name}/Scale")

    def wait(self, output: ir.Value, source: _Quantized) -> None:
        """Leaves the rows' scales to the product behind the gate."""
        (use,) = output.uses()
        if use.node.op_type != "Mul":
            raise ValueError(f"{use.node.name} is not the gate")
        self._waiting[use.node.outputs[0]] = source.scales

    def _weight(self, name: str, read: Reader, dtype: ir.DataType, shape: list[int]) -> ir.Value:
        tensor = ir.LazyTensor(
            lambda: ir.tensor(read(), name=name), dtype=dtype, shape=ir.Shape(shape), name=name
        )
        value = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        self.weights.append(value)
        return value

    def _insert(
        self,
        before: ir.Node,
        kind: str,
        inputs: Sequence[ir.Value],
        name: str,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        made = ir.node(kind, inputs, attributes, domain=domain, name=name)
        made.outputs[0].name = f"{name}/output_0"
        self._graph.insert_before(before, made)
        return made.outputs[0]


def _gathered(graph: ir.Graph) -> set[ir.Value]:
    """Everything that has a row per wanted logit, not per token."""
    reached = {value for value in graph.inputs if value.name == "logit_indices"}
    for node in graph:
        if any(value in reached for value in node.inputs if value is not None):
            reached.update(node.outputs)
    return reached


def _drop_weights(graph: ir.Graph) -> None:
    unused = [name for name, value in graph.initializers.items() if not value.uses()]
    for name in unused:
        graph.initializers.pop(name)
