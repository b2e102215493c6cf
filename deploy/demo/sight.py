"""First lesson: the tower alone learns to see, from dense labels."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.demo.drawing import CHARACTERS, COLORS, SHAPES
from deploy.demo.labels import IGNORED, LETTERS, LONGEST_TEXT, Labels, dense_labels
from deploy.demo.lean import Features, linear
from deploy.demo.pictures import draw, frame_for, random_grid
from deploy.demo.scenes import compose, random_names, random_text

NOTHING_WEIGHT = 0.1  # how much a cell that holds nothing counts
# Which classes each head tells apart, how many answers it gives, and what it reads:
# patches before merging, the merged tokens, or a DeepStack level.
HEADS: dict[str, tuple[int, int, str]] = {
    "patch_color": (1 + len(COLORS), 1, "patches"),
    "patch_shape": (1 + len(SHAPES), 1, "patches"),
    "patch_character": (1 + len(CHARACTERS), 2, "patches"),
    "color": (1 + len(COLORS), 1, "merged"),
    "shape": (1 + len(SHAPES), 1, "merged"),
    "box": (11, 8, "merged"),
    "letters": (1 + len(CHARACTERS), LETTERS, "deepstack"),
    "places": (1 + LONGEST_TEXT, LETTERS, "deepstack"),
}


class SightHeads(nn.Module):
    """Linear heads over the tower; used in training only and never shipped."""

    def __init__(self, patch_width: int, merged_width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(patch_width if source == "patches" else merged_width, many * each)
                for name, (each, many, source) in HEADS.items()
            }
        )

    def forward(
        self, features: Features, labels: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """The summed loss, and each head's accuracy where there was something to see."""
        loss = torch.zeros(())
        accuracy = {}
        inputs = {
            "patches": features.patches,
            "merged": features.merged,
            "deepstack": features.deepstack[-1],
        }
        for name, (each, _, source) in HEADS.items():
            head = self.heads[name]
            assert isinstance(head, nn.Linear)
            logits = linear(head, inputs[source]).flatten().view(-1, each).float()
            target = labels[name].flatten()
            weight = torch.ones(each)
            if name != "box":
                weight[0] = NOTHING_WEIGHT
            loss = loss + F.cross_entropy(logits, target, weight, ignore_index=IGNORED)
            there = target > 0
            right = logits.detach()[there].argmax(-1) == target[there]
            accuracy[name] = right.float().mean().item()
        return loss, accuracy


def sight_batch(seed: str, index: int, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures uint8 [B, H, W, 3] of one size with their stacked dense labels."""
    rng = random.Random(f"sight {seed} {index}")
    grid = random_grid(rng)
    pictures, labels = [], []
    for _ in range(size):
        frame = frame_for(rng, grid)
        text = random_text(rng) if rng.random() < 0.75 else None
        count = rng.choice((0, 1, 2, 3)) if text else rng.randint(1, 6)
        scene = compose(rng, frame, random_names(rng, count), text)
        pictures.append(draw(rng, scene, frame)[1])
        labels.append(dense_labels(scene, frame.seen_width, frame.seen_height))
    return torch.stack(pictures), stack(labels)


def stack(labels: list[Labels]) -> dict[str, Tensor]:
    """One tensor per kind of label."""
    return {name: torch.from_numpy(np.stack([row[name] for row in labels])) for name in labels[0]}
