"""The questions of the demonstration: their words, their balance, the held-out ones at rest."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.demo_model import phrasings
from tests.demo_model.codes import SIDES, STEPS, codebook, words_of_codes
from tests.demo_model.conversations import KINDS, Classroom
from tests.demo_model.evaluation import is_right
from tests.demo_model.held_out import SKILLS, question

TOKENIZER = Path(__file__).parents[3] / "deploy/demo/checkpoint/tokenizer.json"
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


def test_boxes_are_told_in_hundreds() -> None:
    for number in range(20):
        box = json.loads(question("locate", number).turns[-1].answer)["bbox_2d"]

        assert all(side % 100 == 0 and 0 <= side <= 1000 for side in box)
        assert box[0] < box[2]
        assert box[1] < box[3]


def test_every_lecture_of_a_training_run_can_be_made() -> None:
    classroom = Classroom(TOKENIZER, "unit test", draws=False)

    lectures = [classroom.lecture(number, rank=0, size=1) for number in range(0, 1200, 40)]

    assert {lecture.kind for lecture in lectures} == set(KINDS)
    assert all(lecture.spans for lecture in lectures)


def test_digits_start_on_the_sides_of_boxes_that_they_tell() -> None:
    words, book = words_of_codes(), codebook()

    for side in SIDES:
        for step in range(0, STEPS, 2):
            alike = {word: float(code @ book[side][step]) for word, code in words.items()}
            assert max(alike, key=lambda word: alike[word]) == str(step // 2)


def test_guessing_yes_is_right_half_of_the_time() -> None:
    answers = Counter(question("yes_no", number).turns[-1].answer for number in range(100))

    assert answers == {"yes": 50, "no": 50}


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
