"""What the tower is taught: dense labels, told in the codes of `codes.py`."""

import random
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.demo_model.codes import GROUPS, LOUDNESS, codebook, ideal
from tests.demo_model.drawing import CHARACTERS, COLORS, SHAPES
from tests.demo_model.labels import IGNORED, dense_labels, stack
from tests.demo_model.lean import Features, linear
from tests.demo_model.pictures import draw, frame_for, random_grid
from tests.demo_model.scenes import compose, random_names, random_text
from tests.demo_model.videos import random_clock, random_video, random_video_grid

NOTHING_WEIGHT = 0.15  # how much a cell that holds nothing counts
CERTAINTY = 10.0  # logit of a class whose code is there in full; half of it says no class is
EXACTNESS = 0.3  # weight of the distance from the ideal features
VIDEO_SHARE = 0.35
CHANGE_WEIGHT = 3.0  # of what only two frames together tell
PATCH_WEIGHT = 2.0  # of what the patches tell, on which everything else rests
# Which classes each helping head over the patches tells apart, and how many answers it gives.
PATCH_HEADS: dict[str, tuple[int, int]] = {
    "patch_color": (1 + len(COLORS), 1),
    "patch_shape": (1 + len(SHAPES), 1),
    "patch_character": (1 + len(CHARACTERS), 2),
}
DenseLabels = Mapping[str, Tensor]
Parts = tuple[Tensor, dict[str, float]]


class SightHeads(nn.Module):
    """Linear heads over the patches; used in training only and never shipped."""

    def __init__(self, patch_width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Linear(patch_width, each * many)
                for name, (each, many) in PATCH_HEADS.items()
            }
        )

    def forward(self, features: Features, labels: DenseLabels) -> Parts:
        """The summed loss, and how often each kind of label was right where there was one."""
        loss = distance(features, labels)
        accuracy = {}
        for name in GROUPS:
            for logits in told(features, name):
                term, accuracy[name] = graded(logits, labels[name])
                loss = loss + (CHANGE_WEIGHT if name in ("motion", "novelty") else 1) * term
        for name, (each, _) in PATCH_HEADS.items():
            head = self.heads[name]
            assert isinstance(head, nn.Linear)
            logits = linear(head, features.patches).float().flatten().view(-1, each)
            term, accuracy[name] = graded(logits, labels[name])
            loss = loss + PATCH_WEIGHT * term
        return loss, accuracy


def told(features: Features, name: str) -> list[Tensor]:
    """Logits of a group's classes, as the codes in the features tell them; one per level."""
    group = GROUPS[name]
    levels = (features.merged, *features.deepstack)
    codes = codebook()[name] * (CERTAINTY / LOUDNESS**2)
    bias = torch.zeros(group.classes)
    if group.silent:
        bias[0] = CERTAINTY / 2
    return [levels[level].float() @ codes.T + bias for level in group.levels]


def graded(logits: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy, and the share that was right among what is there."""
    logits, target = logits.flatten(0, -2), labels.flatten()
    weight = torch.ones(logits.shape[-1])
    weight[0] = NOTHING_WEIGHT
    there = target > 0
    if not (target != IGNORED).any():
        return logits.sum() * 0, float("nan")
    right = logits.detach()[there].argmax(-1) == target[there]
    loss = F.cross_entropy(logits, target, weight, ignore_index=IGNORED)
    return loss, float(right.float().mean())


def distance(features: Features, labels: DenseLabels) -> Tensor:
    """How far the features are from the ideal ones, in squared lengths of a code."""
    weights = torch.where(labels["color"] > 0, 1.0, NOTHING_WEIGHT)
    total = torch.zeros(())
    for given, wanted in zip((features.merged, *features.deepstack), ideal(labels), strict=True):
        far = ((given.float() - wanted) / LOUDNESS).square().sum(-1)
        total = total + (far * weights).sum() / weights.sum()
    return EXACTNESS * total


def sight_batch(seed: str, index: int, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures uint8 [B, H, W, 3], or pairs of frames [B, 2, H, W, 3], with their labels."""
    rng = random.Random(f"sight {seed} {index}")
    if rng.random() < VIDEO_SHARE:
        return video_batch(rng, size)
    grid = random_grid(rng)
    pictures, labels = [], []
    for _ in range(size):
        frame = frame_for(rng, grid)
        text = random_text(rng) if rng.random() < 0.7 else None
        count = rng.choice((0, 1, 2, 3, 4)) if text else rng.randint(1, 6)
        scene = compose(rng, frame, random_names(rng, count), text)
        pictures.append(draw(rng, scene, frame)[1])
        labels.append(dense_labels(scene, frame.seen_width, frame.seen_height))
    return torch.stack(pictures), stack(labels)


def video_batch(rng: random.Random, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pairs of frames of several videos of one layout."""
    clock = random_clock(rng)
    grid = random_video_grid(rng, clock)
    videos = [random_video(rng, clock, grid) for _ in range(max(1, size // len(clock.stamps)))]
    labels = [video.labels() for video in videos]
    merged = {name: torch.cat([label[name] for label in labels]) for name in labels[0]}
    return torch.cat([video.frames() for video in videos]), merged
