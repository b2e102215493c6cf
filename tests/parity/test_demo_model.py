"""The demonstration model answers what it has learned, from the picture it is given.

The shipped weights are interim: reading, boxes and the order of pictures are not learned yet,
so DeepStack, positions and exchanged pictures cannot be tested with them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.demo.evaluation import Examinee, is_right
from deploy.demo.held_out import Question, question
from deploy.demo.lean import see, to_patches
from tests.support import torchvision_schemas

CHECKPOINT = Path(__file__).parents[2] / "deploy" / "demo" / "checkpoint"
COUNT = 24  # questions per skill
Features = Any  # the tower's output in transformers


@pytest.fixture(scope="module")
def examinee() -> Examinee:
    torchvision_schemas.install()
    return Examinee(CHECKPOINT)


def questions(skill: str) -> list[Question]:
    return [question(skill, number) for number in range(COUNT)]


def accuracy(examinee: Examinee, asked: Sequence[Question]) -> float:
    answers = examinee.answer(asked)
    right = [is_right(q.turns[-1].answer, a) for q, a in zip(asked, answers, strict=True)]
    return sum(right) / len(right)


@contextmanager
def altered_tower(
    examinee: Examinee, alter: Callable[[Features, list[int]], Features]
) -> Iterator[None]:
    """Changes what the tower gives; `alter` also gets the token count of each picture."""
    tower = examinee.model.model.visual
    original = tower.forward

    def forward(pixels: torch.Tensor, grid_thw: torch.Tensor, **settings: Any) -> Features:
        sizes = (grid_thw.prod(-1) // 4).tolist()
        return alter(original(pixels, grid_thw=grid_thw, **settings), sizes)

    tower.forward = forward
    try:
        yield
    finally:
        tower.forward = original


def rearranged(features: Features, sizes: list[int], sources: Sequence[int]) -> Features:
    """Gives every picture the tokens of another, repeated or cut to the length it needs."""

    def rearrange(x: torch.Tensor) -> torch.Tensor:
        parts = torch.split(x, sizes)
        taken = (
            parts[source].repeat(-(-size // sizes[source]), 1)[:size]
            for size, source in zip(sizes, sources, strict=True)
        )
        return torch.cat(list(taken))

    features.pooler_output = rearrange(features.pooler_output)
    features.deepstack_features = [rearrange(x) for x in features.deepstack_features]
    return features


def of_another_picture(features: Features, sizes: list[int]) -> Features:
    count = len(sizes)
    return rearranged(features, sizes, [(i + 1) % count for i in range(count)])


@pytest.mark.parametrize("skill", ["color", "shape", "count"])
def test_it_answers_what_it_has_learned(examinee: Examinee, skill: str) -> None:
    assert accuracy(examinee, questions(skill)) >= 0.9


@pytest.mark.parametrize(("skill", "chance"), [("color", 1 / 9), ("shape", 1 / 5)])
def test_with_another_picture_it_can_only_guess(
    examinee: Examinee, skill: str, chance: float
) -> None:
    asked = questions(skill)

    with altered_tower(examinee, of_another_picture):
        assert accuracy(examinee, asked) <= chance + 0.25


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (6, 10), (12, 4)])
def test_the_lean_tower_is_transformers_tower(examinee: Examinee, rows: int, columns: int) -> None:
    shape = (2, rows * 16, columns * 16, 3)
    pixels = torch.randint(256, shape, generator=torch.manual_seed(0)).to(torch.uint8)
    tower = examinee.model.model.visual
    frames = torch.stack([pixels, pixels], dim=1)
    patches = to_patches(frames, torch.float32).flatten(0, 1)
    with torch.no_grad():
        ours = see(tower, pixels, torch.float32)
        theirs = tower(patches, grid_thw=torch.tensor([[1, rows, columns]] * 2))
    levels = [theirs.pooler_output, *theirs.deepstack_features]
    for mine, level in zip([ours.merged, *ours.deepstack], levels, strict=True):
        assert torch.allclose(mine.flatten(0, 1), level, atol=1e-4 * float(level.abs().max()))
