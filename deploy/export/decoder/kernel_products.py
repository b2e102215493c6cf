"""Puts `tandem.MatMulInt4` in place of `MatMulNBits`: the same integers in another layout.

Gate, up and what joins them become one operator. The weights go to one data file, where every
tensor starts on a page of its own: ONNX Runtime maps them as they lie, so that all processes of a
host share one copy.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploy.export.decoder import values as graph_values
from deploy.export.progress import Advance
from kernels import layout

PAGE_BYTES = 4096


class DataFile:
    """A file of tensors, each on pages of its own."""

    def __init__(self, file: Path, advance: Advance) -> None:
        self._file = file
        self._advance = advance
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._stream = self._file.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def add(self, name: str, array: npt.NDArray[Any]) -> ir.ExternalTensor:
        """Writes an array and says where it lies."""
        assert self._stream is not None, "the file is not open"
        self._stream.write(bytes(-self._stream.tell() % PAGE_BYTES))
        offset = self._stream.tell()
        np.ascontiguousarray(array).tofile(self._stream)
        self._advance(array.nbytes)
        return ir.ExternalTensor(
            self._file.name,
            offset,
            array.nbytes,
            ir.DataType.from_numpy(array.dtype),
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self._file.parent,
        )


def convert_products(graph: ir.Graph, data: DataFile) -> None:
    """Puts the operators in place of `MatMulNBits`, whose weights leave the graph.

    Args:
        graph: A portable graph with joined products (fusing.py), changed in place.
        data: Gets the weights.

    Raises:
        ValueError: a product is not as the exporter writes it.
    """
    for node in [node for node in graph if node.op_type == "MatMulNBits"]:
        if (node.name or "").endswith("/gate_up_proj/MatMul"):
            _convert_gated(graph, node, data)
        else:
            _convert(graph, node, data)
    graph_values.remove_unused_constants(graph)


def _convert(graph: ir.Graph, node: ir.Node, data: DataFile) -> None:
    values, scales = _weight(node, 1), _weight(node, 2)
    packed = layout.pack(values, scales.reshape(values.shape[:2]))
    outputs = node.attributes.get_int("N")
    _replace(graph, node, node.outputs[0], packed, data, outputs=outputs, gated=False)
    graph.remove(node, safe=True)


def _convert_gated(graph: ir.Graph, node: ir.Node, data: DataFile) -> None:
    """Replaces the product, `Split`, the sigmoid and both multiplications behind it."""
    split = _consumers(node.outputs[0], "Split")[0]
    gate, up = split.outputs
    sigmoid, swish = _consumers(gate, "Sigmoid")[0], _consumers(gate, "Mul")[0]
    product = _consumers(up, "Mul")[0]
    values, scales = _weight(node, 1), _weight(node, 2)
    width, odd = divmod(node.attributes.get_int("N"), 2)
    if odd or swish.outputs[0] not in product.inputs or sigmoid.outputs[0] not in swish.inputs:
        raise ValueError(f"{node.name} is not a gate beside its up")
    packed = layout.pack_gated(values, scales.reshape(values.shape[:2]))
    _replace(graph, node, product.outputs[0], packed, data, outputs=width, gated=True)
    graph.remove([product, swish, sigmoid, split, node], safe=True)


def _replace(
    graph: ir.Graph,
    node: ir.Node,
    output: ir.Value,
    packed: layout.PackedWeight,
    data: DataFile,
    *,
    outputs: int,
    gated: bool,
) -> None:
    """Computes `output` by the operator; nodes that did before stay, without a use."""
    prefix = (node.name or "").strip("/").replace("/", ".")
    constants = [
        graph_values.stored(graph, data.add(f"{prefix}.{part}", array))
        for part, array in (("int4", packed.values), ("scales", packed.scales))
    ]
    made = ir.node(
        layout.MATMUL,
        [node.inputs[0], *constants],
        {
            "K": node.attributes.get_int("K"),
            "N": outputs,
            "block_size": node.attributes.get_int("block_size"),
            "gated": int(gated),
        },
        domain=layout.DOMAIN,
        name=node.name,
    )
    result = made.outputs[0]
    result.type, result.shape = output.type, output.shape
    graph.insert_before(node, made)
    if output.is_graph_output():
        name, output.name = output.name, f"{output.name}/portable"
        result.name = name
        graph.outputs[graph.outputs.index(output)] = result
    else:
        result.name = f"{node.name}/int4"
    output.replace_all_uses_with(result)


def _weight(node: ir.Node, index: int) -> npt.NDArray[Any]:
    value = node.inputs[index]
    if value is None or value.const_value is None:
        raise ValueError(f"{node.name} has no constant weight")
    array: npt.NDArray[Any] = value.const_value.numpy()
    return array


def _consumers(value: ir.Value, kind: str) -> list[ir.Node]:
    found = [node for node in value.consumers() if node.op_type == kind]
    if len(found) != 1:
        raise ValueError(f"{value.name} has {len(found)} uses by {kind}, expected 1")
    return found
