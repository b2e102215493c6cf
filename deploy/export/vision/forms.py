"""How the forms of the tower's graph multiply and attend.

`Portable` runs anywhere, `Exact` multiplies and attends with Tandem's operators in float32, `Fast`
in int8.
"""

from typing import Any, Unpack

import numpy as np
import onnx_ir as ir

from deploy.export.vision.builder import MICROSOFT, Constants, GraphBuilder, value
from deploy.export.vision.tower_graph import NORM_EPSILON, Around, TowerConfig
from kernels import float_layout, int8_layout, layout

FLOAT, INT64, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


class Portable:
    """Standard operators and com.microsoft's, so that a stock ONNX Runtime runs it.

    A loop over the segments runs one fused attention each, so that nothing of the size P x P ever
    exists and no patch is masked in vain.
    """

    def __init__(self, config: TowerConfig, constants: Constants) -> None:
        self._config = config
        self._constants = constants

    def tensor(self, name: str) -> ir.TensorProtocol:
        """A constant, in float32."""
        return self._constants.tensor(name)

    def linear(
        self, graph: GraphBuilder, name: str, x: ir.Value, **around: Unpack[Around]
    ) -> ir.Value:
        """See `tower_graph.Form`."""
        norm, gelu, residual = around.get("norm"), around.get("gelu"), around.get("residual")
        if norm is not None:
            weights = [graph.constant(self.tensor(f"{norm}.{part}")) for part in ("weight", "bias")]
            x = graph.node("LayerNormalization", x, *weights, axis=-1, epsilon=NORM_EPSILON)
        weight = graph.constant(self.tensor(f"{name}.weight"))
        bias = graph.constant(self.tensor(f"{name}.bias"))
        made = graph.node("Gemm", x, weight, bias)
        if gelu is not None:
            made = graph.node("Gelu", made, approximate=gelu)
        return made if residual is None else graph.node("Add", made, residual)

    def mlp(
        self, graph: GraphBuilder, name: str, hidden: ir.Value, *, norm: str, gelu: str
    ) -> ir.Value:
        """See `tower_graph.Form`."""
        wide = self.linear(graph, f"{name}.linear_fc1", hidden, norm=norm, gelu=gelu)
        return self.linear(graph, f"{name}.linear_fc2", wide, residual=hidden)

    def attention(self, graph: GraphBuilder, joined: ir.Value) -> ir.Value:
        """See `tower_graph.Form`."""
        width = self._config.hidden_size
        parts = [self._columns(graph, joined, index * width) for index in range(3)]
        turned = [self._rotated(graph, part) for part in parts[:2]]
        rows = [*turned, graph.node("Unsqueeze", parts[2], graph.small(0))]
        bounds = graph.input("segment_bounds")
        count = graph.node("Size", bounds)
        trips = graph.node("Sub", count, graph.small(1, scalar=True))
        found = graph.node(
            "Loop",
            trips,
            None,
            graph.node("SequenceEmpty", dtype=FLOAT),
            body=self._segment(graph, rows, bounds),
        )
        return graph.node("ConcatFromSequence", found, axis=0)

    def _columns(self, graph: GraphBuilder, joined: ir.Value, start: int) -> ir.Value:
        ends = graph.small(start + self._config.hidden_size)
        return graph.node("Slice", joined, graph.small(start), ends, graph.small(1))

    def _rotated(self, graph: GraphBuilder, rows: ir.Value) -> ir.Value:
        """Row i turned by the angles of row i, [1, P, hidden]."""
        return graph.node(
            "RotaryEmbedding",
            graph.node("Unsqueeze", rows, graph.small(0)),
            graph.small(0),  # the position of the first row
            graph.input("rotary_cos"),
            graph.input("rotary_sin"),
            domain=MICROSOFT,
            num_heads=self._config.head_count,
        )

    def _segment(self, graph: GraphBuilder, rows: list[ir.Value], bounds: ir.Value) -> ir.Graph:
        """The loop's body: appends one segment's attention to a sequence."""
        index, go_on = value("segment.index", INT64, ()), value("segment.go_on", BOOL, ())
        done = ir.Value(name="segment.done", type=ir.SequenceType(ir.TensorType(FLOAT)))
        nodes: list[ir.Node] = []

        def node(operator: str, *inputs: ir.Value, domain: str = "", **given: Any) -> ir.Value:
            made = ir.node(operator, list(inputs), given or None, domain=domain)
            made.outputs[0].name = f"segment.{operator}.{len(nodes)}"
            nodes.append(made)
            return made.outputs[0]

        first = node("Unsqueeze", index, graph.small(0))
        start = node("Gather", bounds, first, axis=0)
        end = node("Gather", bounds, node("Add", first, graph.small(1)), axis=0)
        parts = [node("Slice", part, start, end, graph.small(1)) for part in rows]
        heads = self._config.head_count
        made = node("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=heads)
        flat = node("Squeeze", made, graph.small(0))
        outputs = [node("Identity", go_on), node("SequenceInsert", done, flat)]
        outputs[0].type, outputs[0].shape = ir.TensorType(BOOL), ir.Shape(())
        outputs[1].type = done.type
        return ir.Graph([index, go_on, done], outputs, nodes=nodes, name="segment")


class Exact(Portable):
    """Products and attention by Tandem's operators, in float32.

    Args:
        config: The tower's shapes.
        constants: Float32 constants: the position table, and norms that are no product's.
        floats: The products' weights, by `float_name`, and the norms before them.
    """

    _is_fast = False

    def __init__(self, config: TowerConfig, constants: Constants, floats: Constants) -> None:
        super().__init__(config, constants)
        self._floats = floats

    def linear(
        self, graph: GraphBuilder, name: str, x: ir.Value, **around: Unpack[Around]
    ) -> ir.Value:
        """See `tower_graph.Form`."""
        norm, gelu, residual = around.get("norm"), around.get("gelu"), around.get("residual")
        values, biases = (self._floats.tensor(float_name(name, part)) for part in FLOAT_PARTS)
        nothing = graph.constant(ir.tensor(np.zeros(0, np.float32), name="nothing"))
        return graph.node(
            float_layout.MATMUL,
            x,
            graph.constant(values),
            graph.constant(biases),
            nothing if residual is None else residual,
            nothing if norm is None else graph.constant(self._floats.tensor(norm)),
            domain=layout.DOMAIN,
            K=self._constants.tensor(f"{name}.weight").shape[0],
            N=self._constants.tensor(f"{name}.weight").shape[1],
            activation=int8_layout.ACTIVATIONS[gelu],
            epsilon=NORM_EPSILON,
            fast=int(self._is_fast),
        )

    def attention(self, graph: GraphBuilder, joined: ir.Value) -> ir.Value:
        """See `tower_graph.Form`."""
        inputs = ("rotary_cos", "rotary_sin", "segment_bounds")
        return graph.node(
            int8_layout.ATTENTION,
            joined,
            *(graph.input(name) for name in inputs),
            domain=layout.DOMAIN,
            num_heads=self._config.head_count,
            fast=int(self._is_fast),
        )


class Fast(Exact):
    """Products and attention in integers; norms before a product and sums after it are part of it.

    A block's MLP is one operator.

    The mergers stay in float32, or bfloat16 on processors with tiles for it (AMX). What their GELU
    gives has the highest peaks of all (16 to 19 times the mean square's root on the demonstration
    model, a block's 7 to 8), and nothing after them averages: in int8 they lose more than all
    blocks together and are 8 % of the work.

    Args:
        config: The tower's shapes.
        constants: Float32 constants: the position table, and norms that are no product's.
        floats: See `Exact`; the mergers' are used.
        packed: The other products' weights, by `packed_name`, and the norms before them.
    """

    _is_fast = True

    def __init__(
        self, config: TowerConfig, constants: Constants, floats: Constants, packed: Constants
    ) -> None:
        super().__init__(config, constants, floats)
        self._packed = packed

    def linear(
        self, graph: GraphBuilder, name: str, x: ir.Value, **around: Unpack[Around]
    ) -> ir.Value:
        """See `tower_graph.Form`."""
        if not is_packed(name):
            return super().linear(graph, name, x, **around)
        norm, gelu, residual = around.get("norm"), around.get("gelu"), around.get("residual")
        nothing = graph.constant(ir.tensor(np.zeros(0, np.float32), name="nothing"))
        rows = nothing if norm is None else graph.constant(self._packed.tensor(norm))
        inputs, outputs = self._config.shape_of(name)
        return graph.node(
            int8_layout.MATMUL,
            x,
            *self._weight(graph, name),
            nothing if residual is None else residual,
            rows,
            domain=layout.DOMAIN,
            K=inputs,
            N=outputs,
            activation=int8_layout.ACTIVATIONS[gelu],
            epsilon=NORM_EPSILON,
        )

    def mlp(
        self, graph: GraphBuilder, name: str, hidden: ir.Value, *, norm: str, gelu: str
    ) -> ir.Value:
        """See `tower_graph.Form`."""
        return graph.node(
            int8_layout.MLP,
            hidden,
            *self._weight(graph, f"{name}.linear_fc1"),
            *self._weight(graph, f"{name}.linear_fc2"),
            graph.constant(self._packed.tensor(norm)),
            domain=layout.DOMAIN,
            K=self._config.hidden_size,
            N=self._config.intermediate_size,
            activation=int8_layout.ACTIVATIONS[gelu],
            epsilon=NORM_EPSILON,
        )

    def _weight(self, graph: GraphBuilder, name: str) -> list[ir.Value]:
        return [graph.constant(self._packed.tensor(packed_name(name, part))) for part in PACKED]


FLOAT_PARTS = ("values", "biases")  # constants of a float32 weight, in inputs' order
PACKED = ("values", "scales", "sums", "biases")  # constants of a packed weight, in inputs' order


def is_packed(product: str) -> bool:
    """Whether the fast form multiplies with it in int8."""
    return "merger" not in product


def packed_name(product: str, part: str) -> str:
    """The name of a packed weight's constant."""
    return f"{product}.int8.{part}"


def float_name(product: str, part: str) -> str:
    """The name of a constant of a weight in float32."""
    return f"{product}.float.{part}"
