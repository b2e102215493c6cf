"""Turns the builder's graph into the one of `protos.bundle.manifest.DecoderGraph`.

Three changes, each exact:

DeepStack. The model adds level i to the hidden states after decoder layer i. The graph adds that
layer's MLP output to the residual stream inside the next layer's first norm
(`SkipSimplifiedLayerNormalization`), so the level is added to the norm's second input.

Logit rows. Every operation after the last attention works on single rows, and only rows whose
logits are wanted matter from there on. Both inputs of the norm after the last attention are
flattened to rows and gathered: the last MLP, the final norm and the head then run on R rows. (Where
there are as many levels as layers, one level is added after the last MLP, whose rows must then
still be all there; the gathering moves behind it, to the final norm.)

Lengths. `GroupQueryAttention` takes the valid lengths themselves; the builder derives them from
a mask of B x total, which the decoder would have to build for every step.

Source: transformers Qwen3VLTextModel.forward; parity in tests/parity/test_graph.py.
"""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from deploy.export.decoder import values as graph_values

MASK_PREFIX = "/model/attn_mask_reformat/"
LENGTH_NODE = MASK_PREFIX + "attn_mask_subgraph/Sub/Cast"
TOTAL_NODE = MASK_PREFIX + "attn_mask_subgraph/Gather/Cast"


def adapt(graph: ir.Graph, *, layers: int, levels: int) -> None:
    """Changes the graph in place.

    Args:
        graph: The builder's graph, without embeddings.
        layers: Decoder layers.
        levels: DeepStack levels.

    Raises:
        ValueError: the graph is not built as this surgery expects (another builder version).
    """
    nodes = {node.name: node for node in graph}
    new_inputs = [_explicit_lengths(graph, nodes)]
    new_inputs.append([_logit_rows(graph, nodes, layers=layers, levels=levels)])
    new_inputs.append([_deepstack(graph, nodes, level, layers) for level in range(levels)])
    _order_inputs(graph, [value for group in new_inputs for value in group])
    graph_values.remove_unused_constants(graph)


def _explicit_lengths(graph: ir.Graph, nodes: dict[str | None, ir.Node]) -> list[ir.Value]:
    lengths = graph_values.typed("seqlens_k", ir.DataType.INT32, ["batch_size"])
    total = graph_values.typed("total_sequence_length", ir.DataType.INT32, [])
    for name, value in ((LENGTH_NODE, lengths), (TOTAL_NODE, total)):
        _find(nodes, name).outputs[0].replace_all_uses_with(value)
    mask_nodes = [node for node in graph if (node.name or "").startswith(MASK_PREFIX)]
    graph.remove(mask_nodes, safe=True)
    for value in list(graph.inputs):
        if value.name == "attention_mask":
            graph.inputs.remove(value)
    return [lengths, total]


def _logit_rows(
    graph: ir.Graph, nodes: dict[str | None, ir.Node], *, layers: int, levels: int
) -> ir.Value:
    indices = graph_values.typed("logit_indices", ir.DataType.INT64, ["logit_rows"])
    if levels == layers:
        norm = _find(nodes, _norm_after(layers - 1, layers))
    else:
        norm = _find(nodes, f"/model/layers.{layers - 1}/post_attention_layernorm/SkipLayerNorm")
    flat_shape = graph_values.constant(
        graph, "/model/logit_rows/shape", np.array(_flat_shape(norm))
    )
    for index, stream in enumerate(("residual", "output")):
        source = norm.inputs[index]
        flat = ir.node("Reshape", [source, flat_shape], name=f"/model/logit_rows/{stream}/Reshape")
        gathered = ir.node(
            "Gather",
            [flat.outputs[0], indices],
            {"axis": 0},
            name=f"/model/logit_rows/{stream}/Gather",
        )
        for node in (flat, gathered):
            node.outputs[0].name = f"{node.name}/output_0"
        graph.insert_before(norm, [flat, gathered])
        norm.replace_input_with(index, gathered.outputs[0])
    _annotate_rows(graph, norm)
    return indices


def _flat_shape(norm: ir.Node) -> list[int]:
    weight = norm.inputs[2]
    if weight is None or weight.shape is None:
        raise ValueError("the norm's weight has no shape")
    return [-1, int(weight.shape[0])]


def _annotate_rows(graph: ir.Graph, norm: ir.Node) -> None:
    """Corrects the recorded shapes behind the gathering: [R, n] instead of [B, S, n]."""
    reached: set[ir.Value] = set(norm.outputs)
    for node in graph:
        if node is norm or any(value in reached for value in node.inputs if value is not None):
            reached.update(node.outputs)
            for value in node.outputs:
                if value.shape is not None and len(value.shape) == 3:
                    value.shape = ir.Shape(["logit_rows", value.shape[2]])


def _deepstack(
    graph: ir.Graph, nodes: dict[str | None, ir.Node], level: int, layers: int
) -> ir.Value:
    norm = _find(nodes, _norm_after(level, layers))
    hidden = _flat_shape(norm)[1]
    feature = graph_values.typed(
        f"deepstack_embeds.{level}",
        ir.DataType.FLOAT,
        ["batch_size", "deepstack_length", hidden],
    )
    target, index = _before_gathering(norm)
    source = target.inputs[index]
    if source is None:
        raise ValueError(f"{target.name} has no input {index}")
    added = ir.node("Add", [source, feature], name=f"/model/deepstack.{level}/Add")
    added.outputs[0].name = f"{added.name}/output_0"
    added.outputs[0].shape = source.shape
    added.outputs[0].type = source.type
    graph.insert_before(target, added)
    target.replace_input_with(index, added.outputs[0])
    return feature


def _before_gathering(norm: ir.Node) -> tuple[ir.Node, int]:
    """The node and input that take the layer's output while all its rows are still there."""
    source = norm.inputs[1]
    producer = source.producer() if source is not None else None
    if producer is None or not (producer.name or "").startswith("/model/logit_rows/"):
        return norm, 1
    flat = producer.inputs[0].producer() if producer.inputs[0] is not None else None
    if flat is None:
        raise ValueError("the gathered rows have no source")
    return flat, 0


def _norm_after(layer: int, layers: int) -> str:
    if layer == layers - 1:
        return f"/model/layers.{layers}/final_norm_layernorm/SkipLayerNorm"
    return f"/model/layers.{layer + 1}/input_layernorm/SkipLayerNorm"


def _order_inputs(graph: ir.Graph, new: Iterable[ir.Value]) -> None:
    """The contract's order: embeddings and positions, then ours, then the KV cache."""
    old = list(graph.inputs)
    first = [value for value in old if not (value.name or "").startswith("past_key_values.")]
    cache = [value for value in old if (value.name or "").startswith("past_key_values.")]
    graph.inputs.clear()
    graph.inputs.extend([*first, *new, *cache])


def _find(nodes: dict[str | None, ir.Node], name: str) -> ir.Node:
    if name not in nodes:
        raise ValueError(f"the builder's graph has no node {name}")
    return nodes[name]
