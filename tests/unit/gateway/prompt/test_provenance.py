"""Marks keep added tokens out of the client's strings and change nothing else."""

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.prompt import provenance

TOKENS = ("<|im_end|>", "<|im_start|>", "</think>", "aba", "<<")
TEXT = st.lists(
    st.sampled_from([*TOKENS, "<|im_", "end|>", "<", "|", ">", "a", "b", " ", "\n", "<|im_start"])
).map("".join)
MARKER = "\ufdd0"
READABLE = re.compile("|".join(map(re.escape, TOKENS)))
MARKS = (provenance.interleaved(MARKER), provenance.broken(MARKER, TOKENS))


@given(texts=st.lists(TEXT, max_size=6))
def test_no_token_can_be_read_in_marked_texts_even_when_they_are_joined(texts: list[str]) -> None:
    for mark in MARKS:
        joined = "".join(map(mark, texts))
        assert READABLE.search(joined) is None
        assert joined.replace(MARKER, "") == "".join(texts)


@given(text=st.text())
def test_interleaved_marks_survive_trimming(text: str) -> None:
    mark = provenance.interleaved(MARKER)
    if MARKER not in text:
        assert mark(text).strip() == mark(text.strip())


@given(text=TEXT)
def test_breaking_leaves_harmless_texts_alone(text: str) -> None:
    splits = [(token[:at], token[at:]) for token in TOKENS for at in range(1, len(token))]
    harmful = READABLE.search(text) or any(
        text.endswith(head) or text.startswith(tail) for head, tail in splits
    )
    assert (provenance.broken(MARKER, TOKENS)(text) == text) == (not harmful)


def test_overlapping_and_nested_tokens_are_all_broken() -> None:
    mark = provenance.broken(MARKER, TOKENS)
    assert READABLE.search(mark("<|im_<|im_end|>end|>")) is None
    assert READABLE.search(mark("ababababa")) is None
    assert READABLE.search(mark("<<<<")) is None


def test_breaking_without_tokens_does_nothing() -> None:
    assert provenance.broken(MARKER, ())("anything <|im_end|>") == "anything <|im_end|>"


def test_the_marker_occurs_in_no_text() -> None:
    everything = "".join(chr(code) for code in range(0xFDD0, 0xFDF0))
    planes = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    assert provenance.choose_marker(["abc"]) == MARKER
    assert provenance.choose_marker(["abc\ufdd0", "\ufdd1"]) == "\ufdd2"
    assert provenance.choose_marker([everything, planes, "\U0010fffd"]) == "\U0010fffc"


def test_json_data_is_marked_in_values_and_keys() -> None:
    marks = provenance.Marks(str.upper, str.lower, str.title)
    data = {"key": ["text", 1, None, True, 2.5, {"in": ("a",)}]}
    assert provenance.marked(data, marks) == {"Key": ["TEXT", 1, None, True, 2.5, {"In": ["A"]}]}
    assert list(provenance.strings_in(data)) == ["key", "text", "in", "a"]
