"""Writes the fast form's weights: int8, rounded and centred by what sample images give them.

What the inputs of a product have in common on all patches says nothing, yet takes most of their
eight bits. So it is taken off where that costs nothing when the graph runs, and the product's bias
makes it good: a norm's means from the norm's bias, and the values' bias, which attention passes on
as it is, from the projection's inputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from deploy.export.checkpoint.weights import StoredTensor
from deploy.export.vision import rounding
from deploy.export.vision.builder import Constants
from deploy.export.vision.forms import PACKED, packed_name
from deploy.export.vision.sample_pass import SamplePass
from deploy.export.vision.samples import SampleShape, samples
from deploy.export.vision.tower_graph import TowerConfig
from kernels import int8_layout
from protos.media.grid_inputs import GridSettings

SEED = 1
WIDE = 512  # towers whose products are worth several threads
PATCHES = 4 * rounding.TOGETHER  # enough to tell how that many inputs vary together


def pack(
    tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], constants: Constants
) -> None:
    """Writes the weights of the embedding's and the blocks' products, and the norms before them.

    Args:
        tensors: The tower's tensors by their names within it.
        config: The checkpoint's vision_config.
        constants: Where to write, by `forms.packed_name` and by the norms' names.
    """
    with _threads_worth_waking(config["hidden_size"]):
        _Packing(tensors, config, constants).run()


@contextmanager
def _threads_worth_waking(width: int) -> Iterator[None]:
    """One for a narrow tower, whose many small products take longer to share out than to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if width >= WIDE else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Packing:
    def __init__(
        self, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any], constants: Constants
    ) -> None:
        self._tensors = tensors
        self._shapes = TowerConfig.from_config(config)
        self._constants = constants
        images = samples(SampleShape.from_config(config), PATCHES, SEED)
        settings = GridSettings.from_config(config)
        self._pass = SamplePass(self._read, self._shapes, settings, images)
        self._value_bias = torch.zeros(0)  # of the block at hand

    def run(self) -> None:
        for name, inputs in self._pass.products():
            weight, bias = self._read(f"{name}.weight").flatten(1), self._read(f"{name}.bias")
            centre = self._centre(name, inputs)
            if centre is not None:
                inputs, bias = inputs - centre, bias + weight @ centre
            if name.endswith("attn.qkv"):
                self._value_bias = bias[-self._shapes.hidden_size :].clone()
                bias[-self._shapes.hidden_size :] = 0
            values, scales = rounding.rounded(weight, inputs)
            made = int8_layout.pack(values, scales, bias.numpy())
            for part in PACKED:
                self._constants.add(packed_name(name, part), getattr(made, part))

    def _centre(self, name: str, inputs: torch.Tensor) -> torch.Tensor | None:
        """What is taken off a product's inputs [K]; from a norm's output, also writes the norm."""
        if name.endswith("attn.proj"):
            return self._value_bias
        norm = self._shapes.norm_before(name)
        if norm is None:
            return None
        mean = inputs.mean(dim=0)
        moved = torch.stack([self._read(f"{norm}.weight"), self._read(f"{norm}.bias") - mean])
        self._constants.add(norm, moved.numpy())
        return mean

    def _read(self, name: str) -> torch.Tensor:
        return self._tensors[name].read().float()
