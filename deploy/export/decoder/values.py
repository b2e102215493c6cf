"""Makes and removes values and nodes of an ONNX graph, and describes its inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

ROWS = "row_count"  # the dimension of all tokens of a run


def typed(name: str, dtype: ir.DataType, shape: list[int | str | ir.SymbolicDim]) -> ir.Value:
    """A value without a producer: a graph's input."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def constant(graph: ir.Graph, name: str, values: npt.NDArray[Any] | np.generic) -> ir.Value:
    """A constant; the one there is already if the name is known."""
    known = graph.initializers.get(name)
    if known is not None:
        return known
    tensor = ir.tensor(np.asarray(values), name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(np.shape(values)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def stored(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """A constant that a data file holds."""
    if tensor.name is None or not isinstance(tensor.shape, ir.Shape):
        raise ValueError("the tensor has no name or shape")
    value = ir.Value(
        name=tensor.name,
        shape=tensor.shape,
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def node(kind: str, inputs: Sequence[ir.Value | None], name: str, **attributes: int) -> ir.Node:
    """A node with one output, which is named after it."""
    made = ir.node(kind, inputs, attributes, name=name)
    made.outputs[0].name = f"{name}/output_0"
    return made


def remove_unused_nodes(graph: ir.Graph) -> None:
    """Takes out nodes that no output of the graph needs."""
    for made in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in made.outputs):
            graph.remove(made, safe=True)


def remove_unused_constants(graph: ir.Graph) -> None:
    """Takes out constants, of nodes or on their own, without a use: ONNX Runtime warns of them."""
    constants = [made for made in graph if made.op_type == "Constant"]
    graph.remove([made for made in constants if not made.outputs[0].uses()], safe=True)
    for name in [name for name, value in graph.initializers.items() if not value.uses()]:
        graph.initializers.pop(name)


def remove_unused_inputs(graph: ir.Graph) -> None:
    """Takes out the graph's inputs that no node reads."""
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


def name_row_dimensions(graph: ir.Graph) -> None:
    """Says that the inputs are rows of several sequences; forgets recorded inner shapes."""
    for value in graph.inputs:
        name = value.name or ""
        if name == "inputs_embeds" and value.shape is not None:
            value.shape = ir.Shape([1, ROWS, value.shape[2]])
        elif name == "position_ids":
            value.shape = ir.Shape([3, 1, ROWS])
        elif name.startswith("deepstack_embeds.") and value.shape is not None:
            value.shape = ir.Shape([1, "deepstack_length", value.shape[2]])
    kept = {*graph.inputs, *graph.outputs}
    for made in graph:
        for value in made.outputs:
            if value not in kept:
                value.shape = None
