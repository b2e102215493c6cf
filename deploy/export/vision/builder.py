"""A graph under construction: nodes in order, and constants that lie in files to be mapped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from deploy.export.decoder.kernel_products import DataFile

OPSET = 20  # the first with Gelu
MICROSOFT = "com.microsoft"


class Constants:
    """The constants of several graphs, each written once and on pages of its own."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._written: dict[str, ir.ExternalTensor] = {}

    def has(self, name: str) -> bool:
        """Whether it was written already."""
        return name in self._written

    def add(self, name: str, array: npt.NDArray[Any]) -> None:
        """Writes a constant."""
        self._written[name] = self._file.add(name, array)

    def tensor(self, name: str) -> ir.ExternalTensor:
        """Where a constant lies."""
        return self._written[name]


class GraphBuilder:
    """Collects the nodes of one graph.

    Args:
        name: Of the graph.
        inputs: Types and shapes of its inputs; a text is a dimension left open.
    """

    def __init__(
        self, name: str, inputs: Mapping[str, tuple[ir.DataType, Sequence[int | str]]]
    ) -> None:
        self._inputs = {key: value(key, *described) for key, described in inputs.items()}
        self._graph = ir.Graph(list(self._inputs.values()), [], nodes=[], name=name)
        self._count = 0

    def input(self, name: str) -> ir.Value:
        """One of the graph's inputs."""
        return self._inputs[name]

    def node(
        self, operator: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Appends a node of one output; returns it."""
        made = ir.node(operator, list(inputs), attributes or None, domain=domain)
        self._count += 1
        made.name = made.outputs[0].name = f"{operator}.{self._count}"
        self._graph.append(made)
        return made.outputs[0]

    def small(self, *values: int, scalar: bool = False) -> ir.Value:
        """An int64 constant that is kept in the graph itself."""
        array = np.array(values[0] if scalar else values, np.int64)
        name = f"int64{list(values)}" if not scalar else f"int64({values[0]})"
        return self.constant(ir.tensor(array, name=name))

    def constant(self, tensor: ir.TensorProtocol) -> ir.Value:
        """A constant; the same one for the same name."""
        name = str(tensor.name)
        found = self._graph.initializers.get(name)
        if found is None:
            found = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.shape),
                const_value=tensor,
            )
            self._graph.register_initializer(found)
        return found

    def output(self, name: str, made: ir.Value, shape: Sequence[int | str]) -> None:
        """Names a float32 value and makes it an output of the graph."""
        made.name = name
        made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        self._graph.outputs.append(made)

    def save(self, file: Path, domains: Mapping[str, int]) -> None:
        """Writes the graph; `domains` are the operators' versions besides ONNX's own."""
        model = ir.Model(self._graph, ir_version=10, producer_name="tandem")
        model.opset_imports.update({"": OPSET, **domains})
        ir.save(model, file)


def value(name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
    """A value that comes from outside a graph."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
