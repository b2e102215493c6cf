"""Sizes and JSON of bodies."""

import time

import pytest

from gateway.http.bodies.body import body_size, parse_json
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


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model": "a", "model": "b"}', "model"),
        (b'{"a": [{"b": {"c" : 1, "d": 2, "c"\n:3}}]}', "c"),
        (b'{"model": 1, "\\u006dodel": 2}', "model"),
        (b'{"a": {"x": 1}, "b": [], "a": {}}', "a"),
        (b'{"\xc3\xa9": 1, "\\u00e9": 2}', "\u00e9"),
    ],
)
def test_a_key_twice_in_one_object_is_refused_by_name(body: bytes, key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_json(body)
    assert repr(key) in caught.value.message
    assert caught.value.param == key


@pytest.mark.parametrize(
    "body",
    [
        b'[{"a": 1}, {"a": 2}]',
        b'{"a": {"a": {"a": ["a", "a"]}}, "b": "a"}',
        b'{"a": "b", "b": "\\"a\\": 1"}',
        b'{"a": "x:", "b": "x:"}',
    ],
)
def test_a_key_in_several_objects_and_text_like_a_key_are_accepted(body: bytes) -> None:
    assert parse_json(body)


def test_a_string_that_never_ends_is_refused_at_once() -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidRequest):
        parse_json(b'"' + b'\\"' * 900_000)
    assert time.perf_counter() - started < 10  # it took hours, now milliseconds
