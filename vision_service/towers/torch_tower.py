"""The vision tower: patches in, embeddings and DeepStack features out. Never the language model.

Runs transformers' own `Qwen3VLVisionModel` on the tower's weights alone.
"""

import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file

from protos.bundle.manifest import BundleError
from protos.media.images import Grid
from vision_service.jobs import FloatArray

CONFIG_FILE = "vision/config.json"
WEIGHTS_FILE = "vision/model.safetensors"

# Every key without which a class default of transformers would decide in silence.
REQUIRED_KEYS = (
    "deepstack_visual_indexes",
    "depth",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "intermediate_size",
    "num_heads",
    "num_position_embeddings",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)


class Abandoned(Exception):
    """Nobody waits for the batch any more, so it was dropped half-way."""


class Tower:
    """A loaded vision tower. Not thread-safe: one thread calls `encode`."""

    def __init__(self, model: torch.nn.Module, *, device: str, level_count: int) -> None:
        self._model = model
        self._device = torch.device(device)
        self._level_count = level_count
        self._abandoned: Callable[[], bool] = lambda: False
        for block in model.blocks:  # type: ignore[union-attr]
            block.register_forward_pre_hook(self._check_abandoned)

    @classmethod
    def load(cls, bundle: Path, *, device: str = "cpu", dtype: str = "float32") -> Self:
        """Loads `vision/config.json` and `vision/model.safetensors`.

        Args:
            bundle: Folder of the bundle.
            device: "cpu" or "cuda".
            dtype: Arithmetic of the tower: "float32", "bfloat16" or "float16".

        Raises:
            BundleError: a file or key is missing, or weights and config disagree.
        """
        config = _read_config(bundle)
        wanted = getattr(torch, dtype)
        model = _build(config)
        try:
            weights = load_file(bundle / WEIGHTS_FILE)
        except Exception as error:  # safetensors' errors share no base but this.
            raise BundleError(f"{WEIGHTS_FILE} is missing or not a safetensors file") from error
        cast = {name: weight.to(wanted) for name, weight in weights.items()}
        try:
            model.load_state_dict(cast, strict=True, assign=True)
        except RuntimeError as error:
            raise BundleError(f"{WEIGHTS_FILE} does not fit {CONFIG_FILE}") from error
        model.to(device).eval()
        return cls(model, device=device, level_count=1 + len(config["deepstack_visual_indexes"]))

    @torch.inference_mode()
    def encode(
        self,
        pixels: Sequence[FloatArray],
        grids: Sequence[Grid],
        abandoned: Callable[[], bool] = lambda: False,
    ) -> list[FloatArray]:
        """Encodes images together; each attends to itself alone.

        Args:
            pixels: Patches of each image, float32 [P, D].
            grids: Their patch grids.
            abandoned: Asked before each block; true drops the batch.

        Returns:
            Features of each image, float32 [levels, N, H]; level 0 holds the embeddings.

        Raises:
            Abandoned: `abandoned` said so.
            FloatingPointError: the output is not finite.

        Source: transformers Qwen3VLVisionModel.forward; parity in tests/parity/test_tower.py.
        """
        self._abandoned = abandoned
        # Concatenating copies, so read-only arrays of clients become writable here.
        hidden = torch.from_numpy(np.concatenate(list(pixels))).to(self._device)
        extents = torch.tensor([tuple(grid) for grid in grids], device=self._device)
        output = self._model(hidden, grid_thw=extents)
        levels = [output.pooler_output, *output.deepstack_features]
        features = torch.stack([level.to(torch.float32) for level in levels]).cpu()
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError("the tower's output is not finite; is dtype too narrow?")
        merge = int(self._model.spatial_merge_size)  # type: ignore[arg-type]
        rows = [grid.tokens(merge) for grid in grids]
        return [part.contiguous().numpy() for part in torch.split(features, rows, dim=1)]

    @property
    def level_count(self) -> int:
        """Embeddings and DeepStack levels."""
        return self._level_count

    def _check_abandoned(self, *_: Any) -> None:
        if self._abandoned():
            raise Abandoned


def _read_config(bundle: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((bundle / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise BundleError(f"{CONFIG_FILE} is missing or not valid JSON") from error
    for key in REQUIRED_KEYS:
        if config.get(key) is None:
            raise BundleError(f"{CONFIG_FILE} lacks {key}")
    return config


def _build(config: dict[str, Any]) -> torch.nn.Module:
    """The tower with weights still to be assigned."""
    with _without_torchvision():
        modeling = importlib.import_module("transformers.models.qwen3_vl.modeling_qwen3_vl")
    settings = modeling.Qwen3VLVisionConfig.from_dict(config)
    settings._attn_implementation = "sdpa"
    with torch.device("meta"):  # no time for random weights that are replaced at once
        model: torch.nn.Module = modeling.Qwen3VLVisionModel(settings)
    # Its frequencies are computed, not stored, so they must not stay on the meta device.
    model.rotary_pos_emb = modeling.Qwen3VLVisionRotaryEmbedding(settings)
    return model


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Hides torchvision while transformers is imported, unless it is already in use.

    The tower needs none of it, but transformers imports it where it is installed, which costs
    time, and fails where it was built for another torch.
    """
    hidden = "torchvision" not in sys.modules
    if hidden:
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torchvision"]
