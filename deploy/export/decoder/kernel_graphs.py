"""Writes the graphs for Tandem's own operators: the portable graph's integers in another layout.

Every `MatMulNBits` of the portable graph becomes a `tandem.MatMulInt4`. Gate, up and what joins
them become one operator. What lies between the product for queries, keys and values and the one
after attention (norms per head, rotary positions, `GroupQueryAttention`) becomes one
`tandem.Attention`, which takes rows of any number of sequences and writes their keys and values
into its inputs.

There is a graph for each type of cache. Both name the same weights in one data file, where every
tensor starts on a page of its own: ONNX Runtime maps them as they lie, so that all processes of a
host share one copy.

Tests: tests/parity/test_kernel_graph.py compares with the same arithmetic in NumPy.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploy.export.decoder import values as graph_values
from deploy.export.progress import Advance
from kernels import layout
from protos.bundle.manifest import TextDims

DATA_NAME = "model.tandem.onnx.data"
KV_DTYPES = ("float16", "float32")

PAGE_BYTES = 4096
VERSION = 1  # of the operators' domain

NAME = "/model/flat"
NORM = "SimplifiedLayerNormalization"
INTERLEAVED = 1  # MRotaryEmbedding's mrope_layout


def graph_name(kv_dtype: str) -> str:
    """The file of one of the graphs."""
    return f"model.tandem.{kv_dtype}.onnx"


NAMES = (*(graph_name(dtype) for dtype in KV_DTYPES), DATA_NAME)


def fits(text: TextDims) -> bool:
    """Whether the operators compute a model of these shapes; those of real ones they do."""
    grouped = text.num_attention_heads // text.num_key_value_heads
    is_whole = text.head_dim % layout.HEAD_DIM_STEP == 0
    fits_memory = text.head_dim <= layout.MOST_HEAD_DIM
    return is_whole and fits_memory and grouped <= layout.MOST_GROUPED_HEADS


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
    convert_attention(model.graph)
    model.graph.sort()
    for dtype in KV_DTYPES:
        set_cache(model.graph, dtype)
        ir.save(model, folder / graph_name(dtype))


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


def convert_attention(graph: ir.Graph) -> None:
    """Puts the operator in place of everything between the products; only logits are left to give.

    Args:
        graph: A single-lane graph with joined products, changed in place.

    Raises:
        ValueError: a part is not as the exporter writes it.
    """
    logits = [value for value in graph.outputs if value.name == "logits"]
    graph.outputs.clear()
    graph.outputs.extend(logits)
    attentions = [node for node in graph if node.op_type == "GroupQueryAttention"]
    sequences = graph_values.typed("sequences", ir.DataType.INT32, ["sequence_count", 3])
    graph.inputs.append(sequences)
    angles = _angles(graph, _producer(attentions[0].inputs[0], "MRotaryEmbedding"))
    for node in attentions:
        _convert_attention(graph, node, angles, sequences)
    _remove_unused(graph)
    graph_values.name_row_dimensions(graph)
    for value in graph.inputs:
        if (value.name or "").startswith("past_key_values.") and value.shape is not None:
            value.shape = ir.Shape(["slots", value.shape[1], "capacity", value.shape[3]])


def _convert_attention(
    graph: ir.Graph, node: ir.Node, angles: Sequence[ir.Value], sequences: ir.Value
) -> None:
    norms = [_norm_before(value) for value in node.inputs[:2]]
    split = _producer(node.inputs[2], "Split")
    made = ir.node(
        layout.ATTENTION,
        [
            split.inputs[0],
            *(norm.inputs[1] for norm in norms),
            *angles,
            *node.inputs[3:5],  # the cache
            sequences,
        ],
        {
            "num_heads": node.attributes.get_int("num_heads"),
            "kv_num_heads": node.attributes.get_int("kv_num_heads"),
            "scale": node.attributes.get_float("scale"),
            "epsilon": norms[0].attributes.get_float("epsilon"),
        },
        domain=layout.DOMAIN,
        name=node.name,
    )
    output, old = made.outputs[0], node.outputs[0]
    output.name, output.type = f"{node.name}/attended", old.type
    graph.insert_before(node, made)
    old.replace_all_uses_with(output)


def _norm_before(value: ir.Value | None) -> ir.Node:
    """The norm of the queries or keys that attention takes turned."""
    turned = _producer(value, "MRotaryEmbedding")
    return _producer(_producer(turned.inputs[0], "Reshape").inputs[0], NORM)


def _angles(graph: ir.Graph, rotary: ir.Node) -> list[ir.Value]:
    """Cosines and sines [1, 1, rows, head_dim / 2] of every row, for all layers.

    Of each row's three positions a dimension takes the one its section names, interleaved.

    Source: transformers Qwen3VLTextRotaryEmbedding.apply_interleaved_mrope.
    """
    if rotary.attributes.get_int("mrope_layout") != INTERLEAVED:
        raise ValueError(f"{rotary.name} is not interleaved")
    _, height, width = rotary.attributes.get_ints("mrope_section")
    positions, made = rotary.inputs[1], list[ir.Value]()
    for table, name in zip(rotary.inputs[2:4], ("cosines", "sines"), strict=True):
        if table is None or table.shape is None:
            raise ValueError(f"{rotary.name} has no table of {name}")
        dims = np.arange(int(table.shape[1]))
        masks = [
            graph_values.constant(
                graph, f"{NAME}/axis_{axis}", (dims % 3 == axis) & (dims < 3 * section)
            )
            for axis, section in ((1, height), (2, width))
        ]
        rows = graph_values.node("Gather", [table, positions], f"{NAME}/{name}/Gather", axis=0)
        parts = ir.node(
            "Split", rows.outputs, {"axis": 0}, num_outputs=3, name=f"{NAME}/{name}/Split"
        )
        parts.attributes.add(ir.AttrInt64("num_outputs", 3))
        for axis, value in enumerate(parts.outputs):
            value.name = f"{NAME}/{name}/{axis}"
        wide = graph_values.node(
            "Where", [masks[1], parts.outputs[2], parts.outputs[0]], f"{NAME}/{name}/W"
        )
        high = graph_values.node(
            "Where", [masks[0], parts.outputs[1], wide.outputs[0]], f"{NAME}/{name}/H"
        )
        graph.insert_before(graph[0], [rows, parts, wide, high])
        made.append(high.outputs[0])
    return made


def _producer(value: ir.Value | None, kind: str) -> ir.Node:
    node = None if value is None else value.producer()
    if node is None or node.op_type != kind:
        raise ValueError(f"{value and value.name} is not made by {kind}")
    return node


def _remove_unused(graph: ir.Graph) -> None:
    """Takes out what nothing needs any more: nodes, constants and inputs."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        graph.initializers.pop(name)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


def set_cache(graph: ir.Graph, kv_dtype: str) -> None:
    """Sets what the cache holds, one of `KV_DTYPES`, in place."""
    for value in graph.inputs:
        if (value.name or "").startswith("past_key_values."):
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
