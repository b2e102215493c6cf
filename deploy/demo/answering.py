"""What the second lesson measures: the loss of a lecture and how many answers were right."""

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from deploy.demo.conversations import Lecture
from deploy.demo.lean import MERGE, PATCH, Batch, Features, linear, see, think
from deploy.demo.lesson import Metrics

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


class Answering:
    """Runs lectures through the model."""

    def __init__(
        self,
        model: "Qwen3VLForConditionalGeneration",
        special: dict[str, int],
        precision: torch.dtype,
        coarse_from: int,  # step from which 4-bit weights are practised every other step
    ) -> None:
        self.model = model
        self.image_pad = special["<|image_pad|>"]
        self.video_pad = special["<|video_pad|>"]
        self.precision = precision
        self.coarse_from = coarse_from

    def __call__(self, step: int, lecture: Lecture) -> tuple[Tensor, Metrics]:
        """The loss of a lecture, and the share of answers that were right by skill."""
        with torch.no_grad():
            features = [
                see(self.model.model.visual, as_stills(sight), self.precision)
                for sight in lecture.sights
            ]
        coarse = step >= self.coarse_from and step % 2 == 0
        hidden = self.hidden(lecture, features, coarse)
        logits = linear(self.model.lm_head, hidden[lecture.predictors], coarse).float()
        losses = F.cross_entropy(logits, lecture.targets, reduction="none")
        loss = (losses * lecture.weights).sum() / lecture.weights.sum()
        return loss, self.grades(logits.detach(), lecture)

    def hidden(self, lecture: Lecture, features: list[Features], coarse: bool) -> Tensor:
        """Last hidden states of all conversations."""
        rows = len(lecture.sights[0]) if lecture.sights else 1
        visual = (lecture.prefix == self.image_pad) | (lecture.prefix == self.video_pad)
        width = self.model.config.text_config.hidden_size
        merged = torch.zeros(rows, 0, width, dtype=self.precision)
        deepstack: list[Tensor] = []
        if features:
            merged = side_by_side([f.merged for f in features], rows)
            levels = zip(*(f.deepstack for f in features), strict=True)
            deepstack = [side_by_side(list(level), rows) for level in levels]
        positions, start = self.positions(lecture)
        batch = Batch(
            prefix=lecture.prefix.expand(rows, -1),
            positions=positions,
            visual=visual.nonzero().flatten(),
            suffix=lecture.suffix,
            start=start,
        )
        return think(self.model, batch, merged, deepstack, self.precision, coarse)

    def positions(self, lecture: Lecture) -> tuple[Tensor, int]:
        """MRoPE positions [3, P] of the prefix, from transformers, and where it ends."""
        image, video = lecture.prefix == self.image_pad, lecture.prefix == self.video_pad
        grids = torch.tensor([grid_of(sight) for sight in lecture.sights]).view(-1, 3)
        positions, _ = self.model.model.get_rope_index(
            lecture.prefix[None],
            (image + 2 * video).int()[None],
            image_grid_thw=grids if image.any() else None,
            video_grid_thw=grids if video.any() else None,
            attention_mask=torch.ones_like(lecture.prefix)[None],
        )
        return positions[:, 0], int(positions.max()) + 1

    def grades(self, logits: Tensor, lecture: Lecture) -> Metrics:
        """The share of answers whose every token was right, by skill."""
        right = (logits.argmax(-1) == lecture.targets).tolist()
        marks = defaultdict(list)
        for skill, first, last in lecture.spans:
            marks[skill].append(all(right[first:last]))
        return {skill: sum(values) / len(values) for skill, values in marks.items()}


def as_stills(sight: Tensor) -> Tensor:
    """Pictures [B, H, W, 3] as they are; videos [B, T, 2, H, W, 3] as pairs of frames."""
    return sight if sight.ndim == 4 else sight.flatten(0, 1)


def grid_of(sight: Tensor) -> tuple[int, int, int]:
    """`grid_thw` of one picture or video."""
    height, width = sight.shape[-3] // PATCH, sight.shape[-2] // PATCH
    assert height % MERGE == width % MERGE == 0
    return (1 if sight.ndim == 4 else sight.shape[1]), height, width


def side_by_side(parts: list[Tensor], rows: int) -> Tensor:
    """Visual tokens [B, V, hidden] of all pictures or frames that a row shows, in order."""
    return torch.cat([part.reshape(rows, -1, part.shape[-1]) for part in parts], dim=1)
