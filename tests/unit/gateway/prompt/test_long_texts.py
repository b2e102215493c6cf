"""Long texts are cut where no token changes, and never thought longer than they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from gateway.prompt.long_texts import MOST_TOKENS_PER_CHAR, cut, is_known_form
from gateway.prompt.tokenizer import PromptTokenizer
from tests.support.prompts import processor_files

WORDS = st.sampled_from(
    [
        *(
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "\u00a0",
            "\u3000",
            "。",
            "，",
            "'s",
            "'LL",
            "'",
            "ſ",
            "a",
        ),
        *("lazy", "dog", "7", "١", "日本", "テ", "か", "\u3099", "é", "e", "\u0301", "\u0338", ">"),
        *("<|im_end|>", "<", "|", "_", "!", "\u200d", "👍🏽", "ß", "ǅ", "²", "\ufdd0", "ก็"),
    ]
)
TEXT = st.one_of(st.lists(WORDS, max_size=40).map("".join), st.text(max_size=40))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processor_files(tmp_path_factory.mktemp("files") / "it")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PromptTokenizer:
    return PromptTokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def words(folder: Path) -> Callable[[str], list[str]]:
    """The words a text is split into, which no token crosses."""
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def split(text: str) -> list[str]:
        normal = whole.normalizer.normalize_str(text)
        return [word for word, _ in whole.pre_tokenizer.pre_tokenize_str(normal)]

    return split


@given(text=TEXT, piece_chars=st.integers(1, 12))
@settings(max_examples=1000, deadline=None)
def test_the_tokens_of_pieces_are_the_tokens_of_the_text(
    tokenizer: PromptTokenizer, words: Callable[[str], list[str]], text: str, piece_chars: int
) -> None:
    pieces = list(cut(text, piece_chars))
    assert "".join(pieces) == text
    assert [word for piece in pieces for word in words(piece)] == words(text)
    ids = [token for piece in pieces for token in tokenizer.encode_text(piece)]
    assert ids == tokenizer.encode_text(text)


@given(text=TEXT)
@settings(max_examples=500, deadline=None)
def test_a_text_is_never_thought_longer_than_it_is(tokenizer: PromptTokenizer, text: str) -> None:
    assert tokenizer.least_tokens(text) <= len(tokenizer.encode_text(text))


def test_plain_prose_is_cut_into_pieces_of_about_the_wanted_length() -> None:
    for text in ("the lazy dog " * 1000, "日本語のテキスト。" * 1000, "line\n" * 1000):
        lengths = [len(piece) for piece in cut(text, 100)]
        assert max(lengths) < 130
    assert list(cut("a" * 1000, 100)) == ["a" * 1000]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_tokenizers_of_another_form_are_neither_cut_nor_counted(
    folder: Path, change: dict[str, Any]
) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    assert is_known_form(raw)
    assert not is_known_form({**raw, **change})
    other = PromptTokenizer({**raw, **change}, {})
    assert other.least_tokens("a" * 1000) == 0
    text = "the lazy dog " * 5000
    assert other.encode_prompt(text, "\ufdd0").ids == other.encode_text(text)


@given(text=TEXT)
@settings(max_examples=200, deadline=None)
def test_a_text_is_never_thought_longer_than_its_characters_allow(
    tokenizer: PromptTokenizer, text: str
) -> None:
    for each in (text, "\U0001d160" * 20, "\u0958" * 20, "\U0010ffff" * 20):
        assert tokenizer.least_tokens(each) <= MOST_TOKENS_PER_CHAR * len(each)
