"""Qwen3-VL: patches are embedded linearly, placed by an interpolated table, and rotated by rows
and columns; the outputs of some blocks are merged into DeepStack levels.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vision_service.families.family import VisionFamily

if TYPE_CHECKING:
    import torch

_MODELING = "transformers.models.qwen3_vl.modeling_qwen3_vl"

_CONFIG_KEYS = (
    "deepstack_visual_indexes",
    "depth",
    "hidden_act",
    "hidden_size",
    "in_channels",
    "intermediate_size",
    "num_heads",
    "num_position_embeddings",  # rows of the table of positions, a square
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "temporal_patch_size",
)


def _build(config: Mapping[str, Any]) -> "torch.nn.Module":
    """transformers' own `Qwen3VLVisionModel`."""
    import torch

    with _without_torchvision():
        modeling = importlib.import_module(_MODELING)
    settings = modeling.Qwen3VLVisionConfig.from_dict(dict(config))
    settings._attn_implementation = "sdpa"
    with torch.device("meta"):  # no time for random weights that are replaced at once
        model: torch.nn.Module = modeling.Qwen3VLVisionModel(settings)
    # Its frequencies are computed, not stored, so they must not stay on the meta device.
    model.rotary_pos_emb = modeling.Qwen3VLVisionRotaryEmbedding(settings)
    return model


def _mergers(tower: Any) -> "list[torch.nn.Module]":
    return [tower.merger, *tower.deepstack_merger_list]


def _levels(output: Any) -> "list[torch.Tensor]":
    return [output.pooler_output, *output.deepstack_features]


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


QWEN3_VL = VisionFamily(
    name="qwen3_vl",
    config_keys=_CONFIG_KEYS,
    build=_build,
    mergers=_mergers,
    levels=_levels,
)
