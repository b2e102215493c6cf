"""Request ids of clients."""

from gateway.request.ids import request_id


def test_harmless_request_ids_are_kept() -> None:
    assert request_id("a-B_1.2:3") == "a-B_1.2:3"
    for odd in (None, "", "a b", "x" * 129, "a\nb", "é"):
        assert request_id(odd) != odd
