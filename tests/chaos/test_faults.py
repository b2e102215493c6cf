"""Services on hosts of their own, killed, stopped and cut off while a client asks.

The vision tier runs without Ray here, whose start would take most of the time; `make chaos` has
all of it, and more requests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import FEW, Fault, endure
from tests.chaos.outcomes import outcomes, reference
from tests.chaos.questions import image_questions, text_questions
from tests.chaos.scene import Scene, at_work

AT_ONCE = {"image": 2, "text": 2}
QUESTIONS = [*image_questions()[::4], *text_questions()[:6]]
ANSWERS = 6  # of each kind while a fault lasts
LEAST_RIGHT = 0.9  # of the model's answers without any fault


@pytest.fixture(scope="module")
def scene(network_folder: Path) -> Iterator[Scene]:
    with at_work(network_folder, QUESTIONS, at_once=AT_ONCE, ray=False) as scene:
        yield scene


@pytest.fixture(scope="module")
def known(scene: Scene) -> dict[str, str]:
    """The answers without a fault."""
    return reference(scene.load.answers)


def test_questions_about_images_are_answered_right(known: dict[str, str]) -> None:
    right = [known[q.name] == q.expected for q in QUESTIONS if q.kind == "image"]
    assert sum(right) >= LEAST_RIGHT * len(right)


@pytest.mark.parametrize("fault", FEW, ids=lambda fault: fault.name)
def test_every_request_is_answered_as_if_nothing_had_happened(
    scene: Scene, known: dict[str, str], fault: Fault
) -> None:
    phase = endure(scene, fault, answers=ANSWERS)
    (row,) = outcomes([phase], scene.load.answers, known)
    assert row.is_clean, row.faulty
