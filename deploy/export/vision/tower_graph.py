"""Writes the vision tower as an ONNX graph over the P patches of any images.

Everything that depends on the images' grids is an input (`protos/media/grid_inputs.py`),
so the graph is a plain transformer without arithmetic on shapes. Forms differ in how they multiply
and attend (`forms.py`), and name the same weights in one data file, which is mapped.

Inputs:
    pixel_values      float32 [P, patch_dim]
    position_indices  int64   [4, P]             rows of the position table
    position_weights  float32 [4, P]             what each of them counts
    rotary_cos        float32 [P, head_dim / 2]
    rotary_sin        float32 [P, head_dim / 2]
    segment_bounds    int64   [S + 1]            borders of the runs that attend to each other
Outputs:
    level.0           float32 [N, out_hidden]    the embeddings, N = P / merge_size**2
    level.{i}         float32 [N, out_hidden]    DeepStack, in the order of the text layers

Source: transformers Qwen3VLVisionModel; parity in tests/parity/test_onnx_tower.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypedDict, Unpack

import onnx_ir as ir

from deploy.export.errors import ExportError
from deploy.export.vision.builder import GraphBuilder

NORM_EPSILON = 1e-6  # fixed in transformers' modules
GELU = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}  # ONNX's `approximate`, by hidden_act


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """Shapes of a tower."""

    depth: int
    hidden_size: int
    intermediate_size: int
    head_count: int
    patch_dim: int
    merged_patches: int  # patches of one token
    out_hidden_size: int
    deepstack_indexes: tuple[int, ...]  # blocks after which a level is taken
    gelu: str  # ONNX's `approximate` of the blocks' activation

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads a checkpoint's vision_config.

        Raises:
            ExportError: its activation is not one that this release knows.
        """
        activation = config["hidden_act"]
        if activation not in GELU:
            raise ExportError(f"vision_config: hidden_act is {activation}, supported: {set(GELU)}")
        volume = config["temporal_patch_size"] * config["patch_size"] ** 2
        return cls(
            depth=config["depth"],
            hidden_size=config["hidden_size"],
            intermediate_size=config["intermediate_size"],
            head_count=config["num_heads"],
            patch_dim=config["in_channels"] * volume,
            merged_patches=config["spatial_merge_size"] ** 2,
            out_hidden_size=config["out_hidden_size"],
            deepstack_indexes=tuple(config["deepstack_visual_indexes"]),
            gelu=GELU[activation],
        )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.head_count

    @property
    def products(self) -> tuple[str, ...]:
        """Names of everything that is multiplied with, without `.weight` and `.bias`."""
        parts = ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
        blocks = (f"blocks.{index}.{part}" for index in range(self.depth) for part in parts)
        levels = range(len(self.deepstack_indexes))
        mergers = ("merger", *(f"deepstack_merger_list.{level}" for level in levels))
        merged = (f"{name}.linear_fc{number}" for name in mergers for number in (1, 2))
        return ("patch_embed.proj", *blocks, *merged)

    def shape_of(self, product: str) -> tuple[int, int]:
        """Inputs and outputs of one of `products`, the mergers' apart."""
        hidden = self.hidden_size
        shapes = {
            "attn.qkv": (hidden, 3 * hidden),
            "attn.proj": (hidden, hidden),
            "mlp.linear_fc1": (hidden, self.intermediate_size),
            "mlp.linear_fc2": (self.intermediate_size, hidden),
            "patch_embed.proj": (self.patch_dim, hidden),
        }
        return next(shape for end, shape in shapes.items() if product.endswith(end))

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the blocks' norms, each right before a product."""
        return tuple(f"blocks.{index}.norm{part}" for index in range(self.depth) for part in (1, 2))

    @property
    def merger_norms(self) -> tuple[str, ...]:
        """Names of the mergers' norms that are right before a product."""
        levels = range(len(self.deepstack_indexes))
        return tuple(f"deepstack_merger_list.{level}.norm" for level in levels)

    @staticmethod
    def norm_before(product: str) -> str | None:
        """The block's norm right before one of `products`, if there is one."""
        for end, norm in (("attn.qkv", "norm1"), ("mlp.linear_fc1", "norm2")):
            if product.endswith(end):
                return product.removesuffix(end) + norm
        return None


class Around(TypedDict, total=False):
    """What is done with the rows before and after a product."""

    norm: str | None  # the name of the layer norm before it
    gelu: str | None  # ONNX's `approximate` of the activation after it
    residual: ir.Value | None  # what is added after that


class Form(Protocol):
    """How a graph multiplies and attends."""

    def linear(
        self, graph: GraphBuilder, name: str, x: ir.Value, **around: Unpack[Around]
    ) -> ir.Value:
        """norm(x) @ weight + bias, then an activation or a sum with `residual`."""
        ...

    def mlp(
        self, graph: GraphBuilder, name: str, hidden: ir.Value, *, norm: str, gelu: str
    ) -> ir.Value:
        """hidden + fc2(gelu(fc1(norm(hidden)))), of a block."""
        ...

    def attention(self, graph: GraphBuilder, joined: ir.Value) -> ir.Value:
        """From [P, 3 * hidden] queries, keys and values to [P, hidden]."""
        ...

    def tensor(self, name: str) -> ir.TensorProtocol:
        """A constant that no product uses, in float32."""
        ...


def write(form: Form, config: TowerConfig, file: Path, domains: Mapping[str, int]) -> None:
    """Writes one form's graph; `domains` are versions of operators besides ONNX's own."""
    half = config.head_dim // 2
    graph = GraphBuilder(
        "tower",
        {
            "pixel_values": (ir.DataType.FLOAT, ("P", config.patch_dim)),
            "position_indices": (ir.DataType.INT64, (4, "P")),
            "position_weights": (ir.DataType.FLOAT, (4, "P")),
            "rotary_cos": (ir.DataType.FLOAT, ("P", half)),
            "rotary_sin": (ir.DataType.FLOAT, ("P", half)),
            "segment_bounds": (ir.DataType.INT64, ("S + 1",)),
        },
    )
    for index, level in enumerate(_Tower(graph, form, config).levels()):
        graph.output(f"level.{index}", level, ("N", config.out_hidden_size))
    graph.save(file, domains)


class _Tower:
    """The tower's modules, each a method that appends its nodes."""

    def __init__(self, graph: GraphBuilder, form: Form, config: TowerConfig) -> None:
        self._graph = graph
        self._form = form
        self._config = config

    def levels(self) -> list[ir.Value]:
        """The embeddings, then the DeepStack levels."""
        taken = {}
        hidden = self._patch_embedding()
        for index in range(self._config.depth):
            hidden = self._block(f"blocks.{index}", hidden)
            if index in self._config.deepstack_indexes:
                level = self._config.deepstack_indexes.index(index)
                merger = f"deepstack_merger_list.{level}"
                taken[level] = self._merger(merger, hidden, is_norm_wide=True)
        embeddings = self._merger("merger", hidden, is_norm_wide=False)
        return [embeddings, *(taken[level] for level in sorted(taken))]

    def _patch_embedding(self) -> ir.Value:
        graph = self._graph
        table = graph.constant(self._form.tensor("pos_embed.weight"))
        corners = graph.node("Gather", table, graph.input("position_indices"), axis=0)
        weights = graph.node("Unsqueeze", graph.input("position_weights"), graph.small(-1))
        weighted = graph.node("Mul", corners, weights)
        position = graph.node("ReduceSum", weighted, graph.small(0), keepdims=0)
        pixels = graph.input("pixel_values")
        return self._form.linear(graph, "patch_embed.proj", pixels, residual=position)

    def _block(self, name: str, hidden: ir.Value) -> ir.Value:
        graph, form = self._graph, self._form
        joined = form.linear(graph, f"{name}.attn.qkv", hidden, norm=f"{name}.norm1")
        attended = form.attention(graph, joined)
        hidden = form.linear(graph, f"{name}.attn.proj", attended, residual=hidden)
        norm, gelu = f"{name}.norm2", self._config.gelu
        return form.mlp(graph, f"{name}.mlp", hidden, norm=norm, gelu=gelu)

    def _merger(self, name: str, hidden: ir.Value, *, is_norm_wide: bool) -> ir.Value:
        graph = self._graph
        norm = f"{name}.norm"
        width = graph.small(-1, self._config.hidden_size * self._config.merged_patches)
        if not is_norm_wide:
            hidden = self._norm(norm, hidden)
        merged = graph.node("Reshape", hidden, width)
        wide = self._form.linear(
            graph,
            f"{name}.linear_fc1",
            merged,
            norm=norm if is_norm_wide else None,
            gelu="none",
        )
        return self._form.linear(graph, f"{name}.linear_fc2", wide)

    def _norm(self, name: str, x: ir.Value) -> ir.Value:
        weight = self._graph.constant(self._form.tensor(f"{name}.weight"))
        bias = self._graph.constant(self._form.tensor(f"{name}.bias"))
        return self._graph.node(
            "LayerNormalization", x, weight, bias, axis=-1, epsilon=NORM_EPSILON
        )
