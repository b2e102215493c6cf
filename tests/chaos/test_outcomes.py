"""What counts as a fault's cost."""

from typing import Any

import pytest

from tests.chaos.answers import Answer
from tests.chaos.outcomes import outcomes, reference, table
from tests.chaos.scene import Phase
from tests.demo_model.phrasings import NO_PICTURE_ANSWER

GATEWAY, OTHER = "https://a/v1", "https://b/v1"
KNOWN = {"color 1": "red"}


def answer(**changed: Any) -> Answer:
    whole = {
        "kind": "image", "name": "color 1", "gateway": GATEWAY, "began_s": 11.0, "ended_s": 12.0,
        "text": "red", "finish": "stop",
    }  # fmt: skip
    return Answer(**{**whole, **changed})


def phase(**changed: Any) -> Phase:
    usual = {"name": "it", "gateway": None, "began_s": 10.0, "ended_s": 20.0, "whole_s": 25.0}
    return Phase(**{**usual, **changed})


LOST = {"error": "cut", "finish": None, "connection": "lost"}


@pytest.mark.parametrize(
    ("changed", "counted"),
    [
        ({}, (0, 0, 0, 0)),
        ({"error": "503", "finish": None}, (1, 0, 0, 0)),
        ({"finish": None}, (1, 0, 0, 0)),  # a stream that just ends
        (LOST, (0, 1, 0, 0)),
        ({**LOST, "gateway": OTHER}, (1, 0, 0, 0)),
        ({"text": "blue"}, (0, 0, 1, 0)),
        ({"text": NO_PICTURE_ANSWER}, (0, 0, 1, 1)),
        ({"error": "no one there", "finish": None, "connection": "refused"}, (0, 0, 0, 0)),
    ],
)
def test_each_request_that_went_wrong_is_counted_as_what_it_is(
    changed: dict[str, Any], counted: tuple[int, ...]
) -> None:
    (row,) = outcomes([phase(gateway=GATEWAY)], [answer(**changed)], KNOWN)
    assert (row.failed, row.gateways_own, row.other_answer, row.without_image) == counted
    assert row.is_clean == (counted[0] + counted[2] + counted[3] == 0)


def test_a_request_belongs_to_the_fault_it_ended_in() -> None:
    first, second = phase(), phase(began_s=30.0, ended_s=40.0, whole_s=None)
    late, after = answer(ended_s=35.0), answer(ended_s=45.0)
    rows = outcomes([first, second], [answer(), late, after], KNOWN)
    assert [(row.images, row.whole_again_s) for row in rows] == [(1, 5.0), (1, None)]
    assert "| never |" in table(rows)


def test_an_undisturbed_run_with_two_answers_to_a_question_is_no_reference() -> None:
    assert reference([answer(), answer()]) == KNOWN
    with pytest.raises(ValueError, match="blue"):
        reference([answer(), answer(text="blue")])
    with pytest.raises(ValueError, match="503"):
        reference([answer(error="503", finish=None)])
