"""Request ids of clients."""

import pytest

from gateway.request.ids import choice_id, request_id


def test_harmless_request_ids_are_kept() -> None:
    assert request_id("a-B_1.2:3") == "a-B_1.2:3"
    for odd in (None, "", "a b", "x" * 129, "a\nb", "é"):
        assert request_id(odd) != odd


@pytest.mark.parametrize("length", [1, 120, 126, 127, 128])
@pytest.mark.parametrize("choice", [1, 9, 127])
def test_every_choice_has_an_id_of_its_own_that_the_decoder_takes(length: int, choice: int) -> None:
    ids = {choice_id("a" * length, at) for at in range(choice + 1)}
    assert len(ids) == choice + 1
    assert all(len(found) <= 128 and request_id(found) == found for found in ids)
    assert choice_id("a" * length, 0) == "a" * length


def test_long_ids_that_differ_at_their_end_alone_stay_apart() -> None:
    assert choice_id("a" * 127 + "b", 1) != choice_id("a" * 127 + "c", 1)
    assert choice_id("short", 2) == "short-2"
