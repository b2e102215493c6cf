"""The demonstration model also answers about pictures that other code drew."""

from pathlib import Path

import pytest

from tests.demo_model.evaluation import Examinee
from tests.support import plain_pictures, torchvision_schemas

CHECKPOINT = Path(__file__).parents[2] / "deploy" / "demo" / "checkpoint"
COUNT = 40  # questions per skill
LEAST = 0.9


@pytest.fixture(scope="module")
def examinee() -> Examinee:
    torchvision_schemas.install()
    return Examinee(CHECKPOINT)


@pytest.mark.parametrize("skill", plain_pictures.MAKERS)
def test_it_answers_about_pictures_that_other_code_drew(examinee: Examinee, skill: str) -> None:
    asked = plain_pictures.questions(skill, COUNT)

    answers = examinee.answer(asked)

    right = [a.strip() == q.turns[-1].answer for q, a in zip(asked, answers, strict=True)]
    assert sum(right) >= LEAST * COUNT
