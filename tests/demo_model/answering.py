"""What the second and third lessons measure: the loss of a lecture, and the right answers."""

from collections import defaultdict
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.demo_model.codes import amplified, grainy, ideal, softened
from tests.demo_model.conversations import Lecture
from tests.demo_model.lean import Batch, Features, linear, see, think
from tests.demo_model.lesson import Metrics
from tests.demo_model.sight import SightHeads

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

SIGHT_WEIGHT = 0.1  # of the dense labels, beside the answers
COARSE_BLOCKS = (32, 128)  # weights that share a scale in INT4 bundles


class Answering:
    """Runs lectures through the model."""

    def __init__(
        self,
        model: "Qwen3VLForConditionalGeneration",
        special: dict[str, int],
        precision: torch.dtype,
        heads: SightHeads | None = None,  # none where lectures have no pictures
        coarse_from: int | None = None,  # step from which 4-bit weights are practised
    ) -> None:
        self.model = model
        self.image_pad = special["<|image_pad|>"]
        self.video_pad = special["<|video_pad|>"]
        self.precision = precision
        self.heads = heads
        self.coarse_from = coarse_from

    def __call__(self, step: int, lecture: Lecture) -> tuple[Tensor, Metrics]:
        """The loss of a lecture, and the share of answers that were right by skill."""
        block = self.coarse_block(step)
        levels, sight_loss, metrics = self.look(lecture)
        hidden = self.hidden(lecture, levels, block)
        logits = linear(self.model.lm_head, hidden[lecture.predictors], block).float()
        losses = F.cross_entropy(logits, lecture.targets, reduction="none")
        loss = (losses * lecture.weights).sum() / lecture.weights.sum()
        return loss + SIGHT_WEIGHT * sight_loss, metrics | self.grades(logits.detach(), lecture)

    def coarse_block(self, step: int) -> int | None:
        """How many weights share a 4-bit scale in this step; none where they stay as they are."""
        if self.coarse_from is None or step < self.coarse_from or step % 3 == 0:
            return None
        return COARSE_BLOCKS[step % 3 - 1]

    def look(self, lecture: Lecture) -> tuple[list[list[Tensor]], Tensor, Metrics]:
        """Features of each sight, the loss of its dense labels, and how well those were told."""
        loss = torch.zeros(())
        if self.heads is None:
            seen = [amplified(grainy(ideal(labels))) for labels in lecture.labels]
            return [[x.to(self.precision) for x in levels] for levels in seen], loss, {}
        levels = []
        marks = defaultdict(list)
        for pixels, labels in zip(lecture.sights, lecture.labels, strict=True):
            features: Features = see(self.model.model.visual, pixels, self.precision)
            levels.append([features.merged, *features.deepstack])
            told = features._replace(deepstack=softened(features.deepstack))
            term, accuracy = self.heads(told, labels)
            loss = loss + term / len(lecture.sights)
            for name, value in accuracy.items():
                marks[f"sight_{name}"].append(value)
        metrics = {name: sum(values) / len(values) for name, values in marks.items()}
        return levels, loss, metrics

    def hidden(self, lecture: Lecture, levels: list[list[Tensor]], block: int | None) -> Tensor:
        """Last hidden states of all conversations."""
        rows = lecture.rows
        visual = (lecture.prefix == self.image_pad) | (lecture.prefix == self.video_pad)
        width = self.model.config.text_config.hidden_size
        merged = torch.zeros(rows, 0, width, dtype=self.precision)
        deepstack: list[Tensor] = []
        if levels:
            merged, *deepstack = (
                side_by_side(list(level), rows) for level in zip(*levels, strict=True)
            )
        positions, start = self.positions(lecture)
        batch = Batch(
            prefix=lecture.prefix.expand(rows, -1),
            positions=positions,
            visual=visual.nonzero().flatten(),
            suffix=lecture.suffix,
            start=start,
        )
        return think(self.model, batch, merged, deepstack, self.precision, block)

    def positions(self, lecture: Lecture) -> tuple[Tensor, int]:
        """MRoPE positions [3, P] of the prefix, from transformers, and where it ends."""
        image, video = lecture.prefix == self.image_pad, lecture.prefix == self.video_pad
        grids = torch.tensor(lecture.grids).view(-1, 3)
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


def side_by_side(parts: list[Tensor], rows: int) -> Tensor:
    """Visual tokens [B, V, hidden] of all pictures or frames that a row shows, in order."""
    return torch.cat([part.reshape(rows, -1, part.shape[-1]) for part in parts], dim=1)
