"""Turns the single-lane graph into the two-lane one of `protos.bundle.manifest.DecoderGraph`.

`GroupQueryAttention` refuses several sequences of several new tokens each. Everything else in the
graph works on single rows, so only attention is split: queries, keys and values (after their norms
and rotary positions) part along the token axis into the prefill lane's [1, T] and the decode lane's
[B, 1], each lane attends to its own cache, and the results are joined to [1, T + B] again.

Source: transformers Qwen3VLTextModel.forward; parity in tests/parity/test_graph_two_lanes.py.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from deploy.export.decoder import values as graph_values

LANES = ("prefill", "decode")
NAME = "/model/lanes"


def split(graph: ir.Graph) -> None:
    """Changes the graph in place.

    Args:
        graph: A single-lane graph as `graph_surgery.adapt` leaves it.

    Raises:
        ValueError: it is not such a graph.
    """
    attentions = [node for node in graph if node.op_type == "GroupQueryAttention"]
    inputs = {value.name or "": value for value in graph.inputs}
    if not attentions or "seqlens_k" not in inputs:
        raise ValueError("the graph has no attention with explicit lengths")
    lengths = {lane: _lane_lengths(lane) for lane in LANES}
    sizes = _split_sizes(graph, inputs["inputs_embeds"], lengths["decode"][0])
    caches = [_split_attention(graph, node, lengths, sizes) for node in attentions]
    old = {"seqlens_k", "total_sequence_length"}
    kept = [value for name, value in inputs.items() if name not in old | _cache_names(attentions)]
    lane_inputs = [value for lane in LANES for value in lengths[lane]]
    graph.inputs.clear()
    graph.inputs.extend([*kept, *lane_inputs, *(past for pasts, _ in caches for past in pasts)])
    logits = [value for value in graph.outputs if value.name == "logits"]
    graph.outputs.clear()
    graph.outputs.extend([*logits, *(made for _, mades in caches for made in mades)])
    graph.remove(attentions, safe=True)
    graph_values.name_row_dimensions(graph)


def _lane_lengths(lane: str) -> tuple[ir.Value, ir.Value]:
    return (
        graph_values.typed(f"{lane}.seqlens_k", ir.DataType.INT32, [f"{lane}_batch"]),
        graph_values.typed(f"{lane}.total_sequence_length", ir.DataType.INT32, []),
    )


def _cache_names(attentions: list[ir.Node]) -> set[str]:
    return {value.name or "" for node in attentions for value in node.inputs[3:5] if value}


def _split_sizes(graph: ir.Graph, embeds: ir.Value, decode_lengths: ir.Value) -> ir.Value:
    """int64 [2], the lanes' rows: [T, B]."""
    rows = graph_values.node("Shape", [embeds], f"{NAME}/rows", start=1, end=2)
    decode = graph_values.node("Shape", [decode_lengths], f"{NAME}/decode_rows")
    prefill = graph_values.node("Sub", [rows.outputs[0], decode.outputs[0]], f"{NAME}/prefill_rows")
    both = graph_values.node(
        "Concat", [prefill.outputs[0], decode.outputs[0]], f"{NAME}/sizes", axis=0
    )
    graph.insert_before(graph[0], [rows, decode, prefill, both])
    return both.outputs[0]


def _split_attention(
    graph: ir.Graph,
    attention: ir.Node,
    lengths: Mapping[str, tuple[ir.Value, ir.Value]],
    sizes: ir.Value,
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Puts one attention per lane in place of one; returns past inputs and present outputs."""
    nodes: list[ir.Node] = []
    parts: dict[str, list[ir.Value]] = {lane: [] for lane in LANES}
    heads = attention.attributes.get_int("num_heads")
    kv_heads = attention.attributes.get_int("kv_num_heads")
    head_dim = _head_dim(attention)
    for source, side, count in zip(
        attention.inputs[:3], ("query", "key", "value"), (heads, kv_heads, kv_heads), strict=True
    ):
        name = f"{attention.name}/{side}"
        split_node = ir.node(
            "Split", [source, sizes], {"axis": 1}, num_outputs=2, name=f"{name}/Split"
        )
        for lane, value in zip(LANES, split_node.outputs, strict=True):
            value.name = f"{name}/{lane}"
        shape = graph_values.constant(
            graph, f"{NAME}/decode_shape/{count * head_dim}", np.array([-1, 1, count * head_dim])
        )
        batched = graph_values.node("Reshape", [split_node.outputs[1], shape], f"{name}/Reshape")
        nodes += [split_node, batched]
        parts["prefill"].append(split_node.outputs[0])
        parts["decode"].append(batched.outputs[0])
    lanes = {lane: _lane_attention(attention, lane, parts[lane], lengths[lane]) for lane in LANES}
    width = heads * head_dim
    shape = graph_values.constant(graph, f"{NAME}/row_shape/{width}", np.array([1, -1, width]))
    flat = graph_values.node(
        "Reshape", [lanes["decode"].outputs[0], shape], f"{attention.name}/Reshape"
    )
    joined = graph_values.node(
        "Concat", [lanes["prefill"].outputs[0], flat.outputs[0]], f"{attention.name}/Concat", axis=1
    )
    nodes += [*lanes.values(), flat, joined]
    graph.insert_before(attention, nodes)
    attention.outputs[0].replace_all_uses_with(joined.outputs[0])
    pasts = [value for node in lanes.values() for value in node.inputs[3:5] if value is not None]
    return pasts, [value for node in lanes.values() for value in node.outputs[1:3]]


def _head_dim(attention: ir.Node) -> int:
    # The cache's last dimension has no size in the builder's graph; the scale is its inverse root.
    scale: float = attention.attributes.get_float("scale")
    return round(1 / (scale * scale))


def _lane_attention(
    attention: ir.Node, lane: str, parts: list[ir.Value], lengths: tuple[ir.Value, ir.Value]
) -> ir.Node:
    pasts = []
    for old in attention.inputs[3:5]:
        if old is None or old.dtype is None or old.shape is None:
            raise ValueError(f"{attention.name} has no typed cache")
        shape = [f"{lane}_batch", old.shape[1], f"{lane}_past_length", old.shape[3]]
        pasts.append(graph_values.typed(f"{lane}.{old.name}", old.dtype, shape))
    made = ir.Node(
        attention.domain,
        "GroupQueryAttention",
        [*parts, *pasts, *lengths],
        list(attention.attributes.values()),
        num_outputs=3,
        name=f"{attention.name}/{lane}",
    )
    made.outputs[0].name = f"{made.name}/output_0"
    for value, old in zip(made.outputs[1:], attention.outputs[1:3], strict=True):
        value.name = f"{lane}.{old.name}"
        value.type = old.type
        value.shape = ir.Shape(
            [f"{lane}_batch", *(old.shape or ())[1:2], f"{lane}_length", *(old.shape or ())[3:]]
        )
    return made
