"""The tower in PyTorch: the family's reference implementation, on the tower's weights alone.

Never the language model.
"""

import json
import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from protos.bundle.manifest import Bundle, BundleError
from vision_service.families.family import VisionFamily
from vision_service.families.registry import family_of
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.members import Abandoned, Members
from vision_service.towers.torch_rows import PassRows

CONFIG_FILE = "vision/config.json"
WEIGHTS_FILE = "vision/model.safetensors"


class TorchTower:
    """A loaded tower; see `tower.BatchEncoder`."""

    computes_all = False

    def __init__(
        self, model: torch.nn.Module, family: VisionFamily, *, device: str, merge_size: int
    ) -> None:
        self._model = model
        self._family = family
        self._device = torch.device(device)
        self._merge_size = merge_size
        self._call = threading.local()  # `rows` of the pass that a thread runs
        for block in model.blocks:  # type: ignore[union-attr]
            block.register_forward_pre_hook(self._before_block, with_kwargs=True)
        for merger in family.mergers(model):
            merger.register_forward_hook(self._after_merger)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        *,
        threads: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        """Loads `vision/config.json` and `vision/model.safetensors`.

        Args:
            bundle: What to load.
            threads: Threads of every torch operation in this process, preprocessing included;
                None leaves them as they are.
            device: "cpu" or "cuda".
            dtype: Arithmetic of the tower: "float32", "bfloat16" or "float16".

        Raises:
            BundleError: a file or key is missing, weights and config disagree, or the family is
                unknown.
        """
        if threads is not None:  # Ray sets OMP_NUM_THREADS=1 for actors.
            torch.set_num_threads(threads)
        family = family_of(bundle.manifest.family)
        config = _read_config(bundle, family)
        wanted = getattr(torch, dtype)
        model = family.build(config)
        try:
            weights = load_file(bundle.path / WEIGHTS_FILE)
        except Exception as error:  # safetensors' errors share no base but this.
            raise BundleError(f"{WEIGHTS_FILE} is missing or not a safetensors file") from error
        cast = {name: weight.to(wanted) for name, weight in weights.items()}
        try:
            model.load_state_dict(cast, strict=True, assign=True)
        except RuntimeError as error:
            raise BundleError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}") from error
        model.to(device).eval()
        return cls(model, family, device=device, merge_size=config["spatial_merge_size"])

    @torch.inference_mode()
    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        """See `tower.BatchEncoder.encode`.

        An image's rows leave before the next block. The others' last bits may then differ from
        those of a pass in which nobody left: torch multiplies other numbers of rows in other ways.

        Raises:
            Abandoned: all images left.
            FloatingPointError: the output is not finite.

        Source: transformers Qwen3VLVisionModel.forward; parity in tests/parity/test_tower.py.
        """
        members = members or Members(len(batch))
        grids = [patches.grid for patches in batch]
        self._call.rows = PassRows(grids, members, merged_patches=self._merge_size**2)
        # Concatenating copies, so read-only arrays of clients become writable here.
        pixels = np.concatenate([patches.pixel_values for patches in batch])
        hidden = torch.from_numpy(pixels).to(self._device)
        extents = torch.tensor([patches.grid for patches in batch], device=self._device)
        levels = self._family.levels(self._model(hidden, grid_thw=extents))
        features = torch.stack([level.to(torch.float32) for level in levels]).cpu()
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError("the tower's output is not finite; is dtype too narrow?")
        rows = [patches.grid.tokens(self._merge_size) for patches in batch]
        parts = [part.contiguous().numpy() for part in torch.split(features, rows, dim=1)]
        remaining = members.remaining
        if not remaining:
            raise Abandoned
        return [part if image in remaining else part[:, :0] for image, part in enumerate(parts)]

    def _before_block(
        self, _: torch.nn.Module, inputs: tuple[Any, ...], others: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden, others = self._call.rows.before_block(inputs[0], others)
        return (hidden, *inputs[1:]), others

    def _after_merger(self, _: torch.nn.Module, __: Any, merged: torch.Tensor) -> torch.Tensor:
        level: torch.Tensor = self._call.rows.after_merger(merged)
        return level


def _read_config(bundle: Bundle, family: VisionFamily) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((bundle.path / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{CONFIG_FILE} is missing or not valid JSON") from error
    for key in family.config_keys:
        if config.get(key) is None:
            raise BundleError(f"{CONFIG_FILE} lacks {key}")
    return config
