"""What a tower has to know about the model family whose weights it runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionFamily:
    """One family, by the name it has in a bundle's manifest.

    Attributes:
        name: The checkpoints' `model_type`.
        config_keys: Keys of `vision/config.json` without which a class default of transformers
            would decide in silence.
        build: Makes the tower of a config in the reference implementation. Its parameters are on
            the meta device and are named like the tensors of `vision/model.safetensors`; whatever
            is computed rather than stored is in place. It has `blocks` and is called with patches
            [P, D] and `grid_thw`, int64 [images, 3]. A block gets hidden states [P, hidden], and by
            name `cu_seqlens` [S + 1], where the runs of patches begin that attend together, and
            `position_embeddings`, a pair of [P, head_dim].
        mergers: The tower's modules that make hidden states into a level, [N, H].
        levels: Takes the embeddings and the DeepStack levels, each [N, H], out of its output.
    """

    name: str
    config_keys: tuple[str, ...]
    build: Callable[[Mapping[str, Any]], "torch.nn.Module"]
    mergers: Callable[[Any], "list[torch.nn.Module]"]
    levels: Callable[[Any], "list[torch.Tensor]"]
