"""Makes values of an ONNX graph."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


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
