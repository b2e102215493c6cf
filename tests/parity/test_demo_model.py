"""The demonstration model answers, and stops answering when a part of the pipeline is broken.

Each ablation is a mistake that a server could make silently. It must cost the skills that
depend on the broken part at least twenty points, or the model would be no test of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.demo_model.evaluation import Examinee, is_right
from tests.demo_model.held_out import SKILLS, Question, question
from tests.demo_model.lean import see, to_patches
from tests.support import torchvision_schemas

CHECKPOINT = Path(__file__).parents[2] / "deploy" / "demo" / "checkpoint"
COUNT = 24  # questions per skill
FALL = 0.2  # least that a broken part costs the skills that depend on it
LEARNED = 0.9
Features = Any  # the tower's output in transformers


@pytest.fixture(scope="module")
def examinee() -> Examinee:
    torchvision_schemas.install()
    return Examinee(CHECKPOINT)


def about_one_pair(number: int) -> Question | None:
    """A comparison whose answer turns round when the two pictures change places."""
    asked = question("compare", number)
    return asked if asked.turns[0].answer.startswith("Picture") else None


def questions(skill: str) -> list[Question]:
    return [question(skill, number) for number in range(COUNT)]


def comparisons() -> list[Question]:
    found = (about_one_pair(number) for number in range(1000))
    return [asked for asked, _ in zip(filter(None, found), range(COUNT), strict=False)]


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


def without_deepstack(features: Features, _: list[int]) -> Features:
    features.deepstack_features = [torch.zeros_like(x) for x in features.deepstack_features]
    return features


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


def pairs_exchanged(features: Features, sizes: list[int]) -> Features:
    return rearranged(features, sizes, [i ^ 1 for i in range(len(sizes))])


@contextmanager
def plain_positions(examinee: Examinee) -> Iterator[None]:
    """Counts positions up by one per token on all three axes."""
    model = examinee.model.model
    original = model.get_rope_index

    def get_rope_index(
        input_ids: torch.Tensor,
        *_: Any,
        attention_mask: torch.Tensor | None = None,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        deltas = positions.max(-1, keepdim=True).values + 1 - input_ids.shape[1]
        return positions.expand(3, -1, -1), deltas

    model.get_rope_index = get_rope_index
    try:
        yield
    finally:
        model.get_rope_index = original


@pytest.mark.parametrize("skill", SKILLS)
def test_it_answers_what_it_has_learned(examinee: Examinee, skill: str) -> None:
    assert accuracy(examinee, questions(skill)) >= LEARNED


def test_without_deepstack_it_cannot_read(examinee: Examinee) -> None:
    with altered_tower(examinee, without_deepstack):
        assert accuracy(examinee, questions("read")) == 0


@pytest.mark.parametrize("skill", ["count", "spatial", "locate", "describe", "follow_up"])
def test_without_deepstack_it_sees_less(examinee: Examinee, skill: str) -> None:
    asked = questions(skill)
    before = accuracy(examinee, asked)

    with altered_tower(examinee, without_deepstack):
        assert accuracy(examinee, asked) <= before - FALL


@pytest.mark.parametrize("skill", ["shape", "count", "locate", "follow_up", "which", "appear"])
def test_with_plain_positions_it_loses_its_way(examinee: Examinee, skill: str) -> None:
    asked = questions(skill)
    before = accuracy(examinee, asked)

    with plain_positions(examinee):
        assert accuracy(examinee, asked) <= before - FALL


@pytest.mark.parametrize(
    ("skill", "chance"),
    [
        ("color", 1 / 9),
        ("shape", 1 / 5),
        ("which", 1 / 3),
        ("spatial", 0),
        ("read", 0),
        ("describe", 0),
        ("locate", 0),
    ],
)
def test_with_another_picture_it_can_only_guess(
    examinee: Examinee, skill: str, chance: float
) -> None:
    asked = questions(skill)

    with altered_tower(examinee, of_another_picture):
        assert accuracy(examinee, asked) <= chance + 0.25


def test_with_the_pictures_exchanged_it_names_the_wrong_one(examinee: Examinee) -> None:
    asked = comparisons()
    before = accuracy(examinee, asked)

    with altered_tower(examinee, pairs_exchanged):
        assert accuracy(examinee, asked) <= before - FALL


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
