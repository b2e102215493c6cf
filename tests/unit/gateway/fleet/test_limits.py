"""How long first messages are waited for, how much is tried twice, and which images are not."""

import time

import pytest

from gateway.fleet.budget import MOST, RetryBudget
from gateway.fleet.suspects import FIRST_S, REFUSED_AFTER, Suspects
from gateway.fleet.words import LEAST_S, MOST_S, FirstWords


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_first_messages_that_all_come_late_get_more_patience() -> None:
    words = FirstWords()
    assert words.within_s() == LEAST_S
    for _ in range(8):
        words.note(0.02)
    words.note(LEAST_S)
    assert words.within_s() == LEAST_S
    for _ in range(16):
        words.note(1.0)
    assert words.within_s() == 10.0
    for _ in range(64):
        words.note(60.0)
    assert words.within_s() == MOST_S


def test_one_call_in_ten_may_be_made_twice(clock: Clock) -> None:
    budget = RetryBudget()
    while budget.take():
        pass
    for _ in range(100):
        budget.called()
    taken = 0
    while budget.take():
        taken += 1
    assert taken in (9, 10)  # tenths do not add up to a whole exactly


def test_with_little_to_do_some_are_allowed_and_not_more_than_that(clock: Clock) -> None:
    budget = RetryBudget()
    while budget.take():
        pass
    clock.now_s += 4.0
    assert budget.take() and not budget.take()
    clock.now_s += 1e6
    assert sum(budget.take() for _ in range(100)) == MOST


def test_an_image_that_ended_two_fronts_is_refused_for_a_time_that_doubles(
    clock: Clock,
) -> None:
    suspects = Suspects()
    suspects.ended(b"bad")
    assert suspects.refused_for_s(b"bad") is None
    suspects.ended(b"bad")
    assert suspects.refused_for_s(b"bad") == FIRST_S
    assert suspects.refused_for_s(b"good") is None
    clock.now_s += FIRST_S
    assert suspects.refused_for_s(b"bad") is None  # tried again, once
    assert suspects.refused_for_s(b"bad") == FIRST_S
    assert suspects.is_suspect(b"bad")
    suspects.ended(b"bad")
    assert suspects.refused_for_s(b"bad") == 2 * FIRST_S


def test_an_image_that_was_encoded_is_innocent() -> None:
    suspects = Suspects()
    for _ in range(REFUSED_AFTER):
        suspects.ended(b"a")
    suspects.encoded(b"a")
    assert suspects.refused_for_s(b"a") is None
    for _ in range(REFUSED_AFTER):
        suspects.ended(b"a")
    assert suspects.refused_for_s(b"a") is None and not suspects.is_suspect(b"a")
