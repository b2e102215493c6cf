"""Writes the graphs for Tandem's own operators: the portable graph's integers in another layout.

Every `MatMulNBits` of the portable graph becomes a `tandem.MatMulInt4`. Gate, up and what joins
them become one operator. `GroupQueryAttention` becomes `tandem.Attention`, which writes new keys
and values into its inputs.

There is a graph for each number of lanes and each type of cache. All name the same weights in one
data file, where every tensor starts on a page of its own: ONNX Runtime maps them as they lie, so
that all graphs and processes of a host share one copy.

Tests: tests/parity/test_kernel_graph.py compares with the same arithmetic in NumPy.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from decoder_service.export import graph_values, two_lanes
from decoder_service.export.progress import Advance
from decoder_service.kernels import layout
from protos.bundle import TextDims

DATA_NAME = "model.tandem.onnx.data"
KV_DTYPES = ("float16", "float32")
LANE_COUNTS = (1, 2)

HEAD_DIM_STEP = 16  # numbers of a register; the operators take whole ones
MOST_GROUPED_HEADS = 16  # query heads of one KV head

PAGE_BYTES = 4096
VERSION = 1  # of the operators' domain


def graph_name(lanes: int, kv_dtype: str) -> str:
    """The file of one of the graphs."""
    return f"model.tandem{'.lanes' if lanes > 1 else ''}.{kv_dtype}.onnx"


NAMES = (*(graph_name(lanes, dtype) for lanes in LANE_COUNTS for dtype in KV_DTYPES), DATA_NAME)


def fits(text: TextDims) -> bool:
    """Whether the operators compute a model of these shapes; those of real ones they do."""
    grouped = text.num_attention_heads // text.num_key_value_heads
    return text.head_dim % HEAD_DIM_STEP == 0 and grouped <= MOST_GROUPED_HEADS


def write(portable: Path, folder: Path, advance: Advance) -> None:
    """Writes the graphs and their data, one product at a time.

    Args:
        portable: The single-lane graph with INT4 products, its data beside it.
        folder: Where it lies; gets the graphs and the data file.
        advance: Called with bytes written.
    """
    model = ir.load(portable)
    with DataFile(folder / DATA_NAME, advance) as data:
        convert_products(model.graph, data)
    model.opset_imports[layout.DOMAIN] = VERSION
    for lanes in LANE_COUNTS:
        if lanes > 1:
            two_lanes.split(model.graph)
        for dtype in KV_DTYPES:
            made = model.clone()
            convert_attention(made.graph, dtype)
            made.graph.sort()
            ir.save(made, folder / graph_name(lanes, dtype))


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
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        graph.initializers.pop(name)


def convert_attention(graph: ir.Graph, kv_dtype: str) -> None:
    """Puts the operator in place of `GroupQueryAttention`; no output but the logits is left.

    Args:
        graph: A single-lane or two-lane graph, changed in place.
        kv_dtype: What its cache holds, one of `KV_DTYPES`.
    """
    logits = [value for value in graph.outputs if value.name == "logits"]
    graph.outputs.clear()
    graph.outputs.extend(logits)
    for node in [node for node in graph if node.op_type == "GroupQueryAttention"]:
        made = ir.node(
            layout.ATTENTION,
            node.inputs[:6],  # query, key, value, their cache, its valid lengths
            {
                "num_heads": node.attributes.get_int("num_heads"),
                "kv_num_heads": node.attributes.get_int("kv_num_heads"),
                "scale": node.attributes.get_float("scale"),
            },
            domain=layout.DOMAIN,
            name=node.name,
        )
        output, old = made.outputs[0], node.outputs[0]
        output.name, output.type, output.shape = f"{node.name}/attended", old.type, old.shape
        graph.insert_before(node, made)
        old.replace_all_uses_with(output)
        graph.remove(node, safe=True)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)  # the longest valid length
    for value in graph.inputs:
        if "past_key_values." in (value.name or ""):
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(kv_dtype)))


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
