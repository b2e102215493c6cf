"""The questions of the demonstration: their words, their balance, the held-out ones at rest."""

from collections import Counter

import numpy as np
import pytest

from deploy.demo import phrasings
from deploy.demo.evaluation import is_right
from deploy.demo.held_out import SKILLS, question

EXAMPLES = {
    "What color is the circle?": phrasings.COLOR,
    "What shape is red?": phrasings.SHAPE,
    "How many squares are there?": phrasings.COUNT,
    "Is there a green star?": phrasings.IS_THERE,
    "What is left of the blue square?": phrasings.SPATIAL,
    "Read the number.": phrasings.READ_NUMBER,
    "Where is the triangle?": phrasings.LOCATE,
    "Which picture shows a cross?": phrasings.WHICH,
    "Are the two pictures the same?": phrasings.SAME,
    "Which way does the circle move?": phrasings.DIRECTION,
    "When does the square appear?": phrasings.APPEAR,
    "Describe the picture.": phrasings.DESCRIBE,
}
SLOTS = {
    "thing": ("circle", "blue square", "triangle", "square"),
    "things": ("squares",),
    "color": ("red",),
    "a_thing": ("a green star", "a cross"),
    "a_thing_capital": ("A cross",),
    "relation": ("left of",),
}


def filled(phrase: str) -> set[str]:
    """The phrase with every word that its slots may take."""
    phrases = {phrase}
    for slot, words in SLOTS.items():
        phrases = {p.replace(f"{{{slot}}}", word) for p in phrases for word in words}
    return phrases


@pytest.mark.parametrize(("example", "ways"), EXAMPLES.items())
def test_an_ordinary_question_is_among_those_it_was_asked(
    example: str, ways: tuple[str, ...]
) -> None:
    assert any(example in filled(way) for way in ways)


@pytest.mark.parametrize("ways", EXAMPLES.values(), ids=EXAMPLES)
def test_there_are_ten_ways_to_ask_for_each_skill(ways: tuple[str, ...]) -> None:
    assert len(set(ways)) >= 10


@pytest.mark.parametrize("skill", SKILLS)
def test_a_held_out_question_is_always_the_same(skill: str) -> None:
    first, second = question(skill, 3), question(skill, 3)

    assert first.turns == second.turns
    assert all(map(np.array_equal, first.pictures, second.pictures))


def test_guessing_yes_is_right_half_of_the_time() -> None:
    answers = Counter(question("yes_no", number).turns[-1].answer for number in range(100))

    assert set(answers) == {"yes", "no"}
    assert 40 <= answers["yes"] <= 60


@pytest.mark.parametrize(
    ("box", "right"),
    [
        ([100, 100, 500, 500], True),
        ([100, 100, 500, 300], True),
        ([100, 100, 500, 290], False),
        ([600, 600, 900, 900], False),
    ],
)
def test_a_box_is_right_if_it_overlaps_by_half(box: list[int], right: bool) -> None:
    expected = '{"bbox_2d": [100, 100, 500, 500], "label": "star"}'
    given = f'{{"bbox_2d": {box}, "label": "star"}}'

    assert is_right(expected, given) is right


def test_a_box_of_another_thing_is_wrong() -> None:
    expected = '{"bbox_2d": [100, 100, 500, 500], "label": "star"}'

    assert not is_right(expected, expected.replace("star", "cross"))
