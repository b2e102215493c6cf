"""The tower of one image in ONNX's own operators alone, for runtimes that lack com.microsoft's.

The portable graph's loop over images and its fused operators are written out, so that a runtime
finds attention in the form that its own patterns know. The weights are the portable graph's file.
"""

import json
from pathlib import Path

import onnx_ir as ir

from deploy.export.vision import tower_graph
from deploy.export.vision.builder import Constants, GraphBuilder
from deploy.export.vision.forms import Portable
from deploy.export.vision.tower_graph import TowerConfig
from deploy.export.vision.writer import DATA_NAME, PORTABLE_NAME

NAME = "tower.plain.onnx"


class Plain(Portable):
    """Attention of all patches to all, by products and a softmax."""

    def attention(self, graph: GraphBuilder, joined: ir.Value) -> ir.Value:
        """See `tower_graph.Form`."""
        width, heads, head_dim = (
            self._config.hidden_size,
            self._config.head_count,
            self._config.head_dim,
        )
        parts = [self._columns(graph, joined, index * width) for index in range(3)]
        shape = graph.small(-1, heads, head_dim)
        queries, keys, values = (graph.node("Reshape", part, shape) for part in parts)
        first, then = (1, 0, 2), (1, 2, 0)
        turned = graph.node("Transpose", self._turned(graph, queries), perm=first)
        scale = graph.constant(ir.tensor([head_dim**-0.5], name="scale", dtype=ir.DataType.FLOAT))
        scores = graph.node(
            "MatMul",
            graph.node("Mul", turned, scale),
            graph.node("Transpose", self._turned(graph, keys), perm=then),
        )
        shares = graph.node("Softmax", scores, axis=-1)
        taken = graph.node("MatMul", shares, graph.node("Transpose", values, perm=first))
        rows = graph.node("Transpose", taken, perm=first)
        return graph.node("Reshape", rows, graph.small(-1, width))

    def _turned(self, graph: GraphBuilder, rows: ir.Value) -> ir.Value:
        """[P, heads, head_dim], row i turned by the angles of row i."""
        half = self._config.head_dim // 2
        axis, step = graph.small(2), graph.small(1)
        ends = (graph.small(0), graph.small(half), graph.small(2 * half))
        left = graph.node("Slice", rows, ends[0], ends[1], axis, step)
        right = graph.node("Slice", rows, ends[1], ends[2], axis, step)
        cos, sin = (
            graph.node("Unsqueeze", graph.input(name), step)
            for name in ("rotary_cos", "rotary_sin")
        )

        def product(one: ir.Value, other: ir.Value) -> ir.Value:
            return graph.node("Mul", one, other)

        turned = (
            graph.node("Sub", product(left, cos), product(right, sin)),
            graph.node("Add", product(right, cos), product(left, sin)),
        )
        return graph.node("Concat", *turned, axis=2)


class _Written(Constants):
    """The portable graph's constants, where they lie."""

    def __init__(self, graph: Path) -> None:
        found = ir.load(graph).graph.initializers.values()
        tensors = (value.const_value for value in found)
        self._written = {
            str(tensor.name): tensor for tensor in tensors if isinstance(tensor, ir.ExternalTensor)
        }


def write(tower: Path, folder: Path) -> Path:
    """Writes the graph of a tower's bundle in a folder of the same file system.

    Its weights are linked there: a runtime takes none that lie elsewhere.
    """
    vision = (tower / "vision").resolve()
    config = TowerConfig.from_config(json.loads((vision / "config.json").read_text()))
    form = Plain(config, _Written(vision / PORTABLE_NAME))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATA_NAME).unlink(missing_ok=True)
    (folder / DATA_NAME).hardlink_to(vision / DATA_NAME)
    tower_graph.write(form, config, folder / NAME, {})
    return folder / NAME
