"""Joins quantized products of one input: queries, keys and values, and gate and up.

The arithmetic stays the same. A decode step is made of products so short that starting each on
every thread costs: half as many decode one sequence some 6 % faster.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from deploy.export.decoder import values as graph_values

# What is joined, in the order of the joined columns, by the name of the joined product.
PARTS = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def fuse(graph: ir.Graph) -> None:
    """Joins the `MatMulNBits` of every layer, in place."""
    nodes = {node.name or "": node for node in graph if node.op_type == "MatMulNBits"}
    for joined, parts in PARTS.items():
        first = f"/{parts[0]}/MatMul"
        for name in [name for name in nodes if name.endswith(first)]:
            layer = name.removesuffix(first)
            products = [nodes[f"{layer}/{part}/MatMul"] for part in parts]
            _join(graph, products, f"{layer}/{joined}")


def _join(graph: ir.Graph, products: Sequence[ir.Node], name: str) -> None:
    first = products[0]
    widths = [product.attributes.get_int("N") for product in products]
    prefix = name.strip("/").replace("/", ".")
    made = ir.Node(
        first.domain,
        first.op_type,
        [
            first.inputs[0],
            _joined(graph, products, 1, f"{prefix}.MatMul.weight"),
            _joined(graph, products, 2, f"{prefix}.MatMul.weight_scales"),
        ],
        [_attribute(value, sum(widths)) for value in first.attributes.values()],
        name=f"{name}/MatMul",
    )
    made.outputs[0].name = f"{name}/MatMul/output_0"
    sizes = graph_values.constant(graph, f"/model/widths/{widths}", np.array(widths))
    split = ir.node(
        "Split",
        [made.outputs[0], sizes],
        {"axis": -1},
        num_outputs=len(widths),
        name=f"{name}/Split",
    )
    graph.insert_before(first, [made, split])
    for product, value in zip(products, split.outputs, strict=True):
        value.name = f"{product.name}/output"
        value.shape, value.type = product.outputs[0].shape, product.outputs[0].type
        product.outputs[0].replace_all_uses_with(value)
    graph.remove(products, safe=True)


def _attribute(value: ir.Attr, width: int) -> ir.Attr:
    return ir.AttrInt64("N", width) if value.name == "N" else value


def _joined(graph: ir.Graph, products: Sequence[ir.Node], index: int, name: str) -> ir.Value:
    """The products' weights or scales under one name; the parts leave the graph."""
    arrays = []
    for product in products:
        value = product.inputs[index]
        if value is None or value.const_value is None or value.name is None:
            raise ValueError(f"{product.name} has no constant weight")
        arrays.append(value.const_value.numpy())
        graph.initializers.pop(value.name)
    return graph_values.constant(graph, name, np.concatenate(arrays))
