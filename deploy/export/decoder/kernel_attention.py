"""Puts `tandem.Attention` in place of everything between a layer's products.

That is, between the product for queries, keys and values and the one after attention: norms per
head, rotary positions, and `GroupQueryAttention`. The operator takes rows of any number of
sequences and writes their keys and values into its inputs.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from deploy.export.decoder import values as graph_values
from kernels import layout

NAME = "/model/flat"
NORM = "SimplifiedLayerNormalization"
INTERLEAVED = 1  # MRotaryEmbedding's mrope_layout


def convert_attention(graph: ir.Graph) -> None:
    """Puts the operator in place of everything between the products; only logits are left to give.

    Args:
        graph: A portable graph with joined products, changed in place.

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
    graph_values.remove_unused_nodes(graph)
    graph_values.remove_unused_constants(graph)
    graph_values.remove_unused_inputs(graph)
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


def set_cache(graph: ir.Graph, kv_dtype: str) -> None:
    """Sets the numbers that the cache holds, "float16" or "float32", in place."""
    for value in graph.inputs:
        if (value.name or "").startswith("past_key_values."):
            value.type = ir.TensorType(ir.DataType.from_numpy(np.dtype(kv_dtype)))
