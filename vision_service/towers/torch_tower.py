"""The tower in PyTorch: the family's reference implementation, on the tower's weights alone.

Never the language model.
"""

import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from protos.bundle.manifest import Bundle, BundleError
from vision_service.families.family import VisionFamily
from vision_service.families.registry import family_of
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.watch import Abandoned

CONFIG_FILE = "vision/config.json"
WEIGHTS_FILE = "vision/model.safetensors"


class TorchTower:
    """A loaded tower; see `tower.BatchEncoder`."""

    def __init__(
        self, model: torch.nn.Module, family: VisionFamily, *, device: str, merge_size: int
    ) -> None:
        self._model = model
        self._family = family
        self._device = torch.device(device)
        self._merge_size = merge_size
        self._call = threading.local()  # `abandoned` of the pass that a thread runs
        for block in model.blocks:  # type: ignore[union-attr]
            block.register_forward_pre_hook(self._check_abandoned)

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
    def encode(
        self, batch: Sequence[Patches], abandoned: Callable[[], bool] = lambda: False
    ) -> list[FloatArray]:
        """See `tower.BatchEncoder.encode`; `abandoned` is asked before each block.

        Raises:
            Abandoned: `abandoned` said so.
            FloatingPointError: the output is not finite.

        Source: transformers Qwen3VLVisionModel.forward; parity in tests/parity/test_tower.py.
        """
        self._call.abandoned = abandoned
        # Concatenating copies, so read-only arrays of clients become writable here.
        pixels = np.concatenate([patches.pixel_values for patches in batch])
        hidden = torch.from_numpy(pixels).to(self._device)
        extents = torch.tensor([patches.grid for patches in batch], device=self._device)
        levels = self._family.levels(self._model(hidden, grid_thw=extents))
        features = torch.stack([level.to(torch.float32) for level in levels]).cpu()
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError("the tower's output is not finite; is dtype too narrow?")
        rows = [patches.grid.tokens(self._merge_size) for patches in batch]
        return [part.contiguous().numpy() for part in torch.split(features, rows, dim=1)]

    def _check_abandoned(self, *_: Any) -> None:
        if self._call.abandoned():
            raise Abandoned


def _read_config(bundle: Bundle, family: VisionFamily) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((bundle.path / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{CONFIG_FILE} is missing or not valid JSON") from error
    for key in family.config_keys:
        if config.get(key) is None:
            raise BundleError(f"{CONFIG_FILE} lacks {key}")
    return config
