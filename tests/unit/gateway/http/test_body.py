"""Sizes and JSON of bodies."""

import pytest

from gateway.http.body import body_size, parse_json
from protos.wire.errors import InvalidRequest


@pytest.mark.parametrize("length", ["51", "x", "-1", "9" * 30, "٣"])
def test_announced_sizes_are_checked(length: str) -> None:
    with pytest.raises(InvalidRequest):
        body_size(length, limit=50)


def test_a_fitting_size_is_returned() -> None:
    assert body_size("50", limit=50) == 50
    assert body_size(None, limit=50) is None


@pytest.mark.parametrize(
    "body", [b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b'"' * 1_000_001]
)
def test_intricate_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_json(body)


def test_brackets_and_quotes_within_strings_are_text() -> None:
    text = '[{"' * 1000
    assert parse_json(b'["' + text.replace('"', '\\"').encode() + b'"]') == [text]
    assert parse_json(b"[" * 64 + b"]" * 64)
