"""The tower in float32 over sample images, to see what each of its products is given."""

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from torch.nn import functional

from deploy.export.vision.samples import Sample
from deploy.export.vision.tower_graph import NORM_EPSILON, TowerConfig
from protos.media.grid_inputs import GridInputs, GridSettings, grid_inputs

Read = Callable[[str], torch.Tensor]  # a tensor of the tower in float32, by its name within it
Products = Generator[tuple[str, torch.Tensor], None, torch.Tensor]


class SamplePass:
    """One run of the blocks; holds one weight at a time.

    Args:
        read: The tower's tensors.
        config: Its shapes.
        settings: What its grid inputs depend on.
        samples: Images, all of which go through each block together.

    Source: transformers Qwen3VLVisionModel; tests/unit/deploy/export/vision/test_sample_pass.py.
    """

    def __init__(
        self, read: Read, config: TowerConfig, settings: GridSettings, samples: Sequence[Sample]
    ) -> None:
        self._read = read
        self._config = config
        self._patches = np.concatenate([sample.patches for sample in samples])
        self._inputs: GridInputs = grid_inputs([sample.grid for sample in samples], settings)
        cos, sin = (
            torch.from_numpy(angles)[:, None]
            for angles in (self._inputs.rotary_cos, self._inputs.rotary_sin)
        )
        self._cos, self._sin = torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1)

    def products(self) -> Products:
        """Yields the products of the embedding and the blocks in order: name, inputs [P, K].

        Returns:
            The last block's output [P, hidden].
        """
        with torch.inference_mode():
            pixels = torch.from_numpy(self._patches)
            hidden = (yield from self._product("patch_embed.proj", pixels)) + self._position()
            for index in range(self._config.depth):
                hidden = yield from self._block(f"blocks.{index}", hidden)
        return hidden

    def _position(self) -> torch.Tensor:
        corners = self._read("pos_embed.weight")[torch.from_numpy(self._inputs.position_indices)]
        weights = torch.from_numpy(self._inputs.position_weights)
        return (corners * weights[..., None]).sum(dim=0)

    def _block(self, name: str, hidden: torch.Tensor) -> Products:
        normed = self._norm(f"{name}.norm1", hidden)
        joined = yield from self._product(f"{name}.attn.qkv", normed)
        hidden = hidden + (yield from self._product(f"{name}.attn.proj", self._attention(joined)))
        normed = self._norm(f"{name}.norm2", hidden)
        wide = yield from self._product(f"{name}.mlp.linear_fc1", normed)
        wide = functional.gelu(wide, approximate=self._config.gelu)
        return hidden + (yield from self._product(f"{name}.mlp.linear_fc2", wide))

    def _product(self, name: str, x: torch.Tensor) -> Products:
        yield name, x
        weight = self._read(f"{name}.weight")
        return functional.linear(x, weight.reshape(len(weight), -1), self._read(f"{name}.bias"))

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._read(f"{name}.weight"), self._read(f"{name}.bias")
        return functional.layer_norm(x, x.shape[-1:], weight, bias, NORM_EPSILON)

    def _attention(self, joined: torch.Tensor) -> torch.Tensor:
        heads, width = self._config.head_count, self._config.head_dim
        parts = joined.reshape(len(joined), 3, heads, width).unbind(dim=1)
        queries, keys = (self._turned(part) for part in parts[:2])
        rows = torch.stack([queries, keys, parts[2]]).transpose(1, 2)
        bounds = self._inputs.segment_bounds.tolist()
        made = []
        for start, end in zip(bounds[:-1], bounds[1:], strict=True):
            query, key, value = rows[:, :, start:end]
            made.append(functional.scaled_dot_product_attention(query, key, value))
        return torch.cat(made, dim=1).transpose(0, 1).reshape(len(joined), -1)

    def _turned(self, rows: torch.Tensor) -> torch.Tensor:
        first, second = rows.chunk(2, dim=-1)
        return rows * self._cos + torch.cat([-second, first], dim=-1) * self._sin
