"""Streamed text against transformers' decode of all tokens at once."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.prompt.tokenizer import PromptTokenizer
from tests.support import bundles, torchvision_schemas

torchvision_schemas.install()
from transformers import AutoTokenizer  # noqa: E402

RELAXED = [HealthCheck.too_slow, HealthCheck.data_too_large]
VOCAB = 800  # above every id of these tokenizers, so that padding rows occur too


@pytest.fixture(scope="module", params=["tied", "deep"])
def pair(request: pytest.FixtureRequest) -> Any:
    folder = bundles.checkpoint(request.param)
    tokens = TokenBytes(PromptTokenizer.from_folder(folder))
    return tokens, AutoTokenizer.from_pretrained(folder)


def pieces(ids: Sequence[int], cuts: Sequence[int]) -> list[Sequence[int]]:
    edges = sorted({0, len(ids), *(cut % (len(ids) + 1) for cut in cuts)})
    return [ids[a:b] for a, b in pairwise(edges)]


def decoded(reference: Any, ids: Sequence[int]) -> str:
    text: str = reference.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text


CUTS = st.lists(st.integers(0, 1000), max_size=30)


@given(ids=st.lists(st.integers(0, VOCAB), max_size=40), cuts=CUTS)
@settings(max_examples=400, deadline=None, suppress_health_check=RELAXED)
def test_pieces_of_any_tokens_join_to_the_decoded_text(
    pair: Any, ids: list[int], cuts: list[int]
) -> None:
    tokens, reference = pair
    detokenizer = Detokenizer(tokens)
    parts = [detokenizer.push(piece) for piece in pieces(ids, cuts)] + [detokenizer.finish()]
    assert "".join(parts) == decoded(reference, ids)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None, suppress_health_check=RELAXED)
def test_no_piece_of_a_valid_text_holds_half_a_character(pair: Any, text: str) -> None:
    tokens, reference = pair
    ids = reference.encode(text, add_special_tokens=False)
    detokenizer = Detokenizer(tokens)
    shown = ""
    for token_id in ids:
        shown += detokenizer.push([token_id])
        assert decoded(reference, ids).startswith(shown)
    assert shown + detokenizer.finish() == decoded(reference, ids)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The rule, one character at a time: the first stop to be complete, the longest of these."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if stop and text[:end].endswith(stop)]
        if hits:
            stop = max(hits, key=len)
            return text[: end - len(stop)], stop
    return text, None


STOPS = st.lists(st.text(st.sampled_from("abé<|> "), min_size=1, max_size=4), max_size=4)
ANSWER = st.lists(st.sampled_from(["a", "b", "é", "ab", "<|", "|>", " ", "\xff", "aab"]))


@given(answer=ANSWER, stops=STOPS, cuts=CUTS)
@settings(max_examples=400, deadline=None, suppress_health_check=RELAXED)
def test_stop_strings_cut_at_the_same_place_however_tokens_come(
    pair: Any, answer: list[str], stops: list[str], cuts: list[int]
) -> None:
    tokens, reference = pair
    ids = reference.encode("".join(answer), add_special_tokens=False)
    detokenizer = Detokenizer(tokens, stops)
    parts = [detokenizer.push(piece) for piece in pieces(ids, cuts)] + [detokenizer.finish()]
    text, stop = cut_at_stop(decoded(reference, ids), stops)
    assert "".join(parts) == text
    assert detokenizer.stopped == (stop is not None)


@given(answer=ANSWER, stops=STOPS)
@settings(max_examples=200, deadline=None, suppress_health_check=RELAXED)
def test_only_a_tail_that_may_become_a_stop_string_is_held_back(
    pair: Any, answer: list[str], stops: list[str]
) -> None:
    tokens, reference = pair
    detokenizer = Detokenizer(tokens, stops)
    shown, seen = "", []
    for token_id in reference.encode("".join(answer), add_special_tokens=False):
        shown += detokenizer.push([token_id])
        seen.append(token_id)
        if detokenizer.stopped:
            break
        whole = b"".join(map(tokens.shown, seen)).decode("utf-8", "ignore")
        held = whole.removeprefix(shown)
        assert shown + held == whole
        tails = [whole[at:] for at in range(len(whole))]
        longest = next((tail for tail in tails if any(stop.startswith(tail) for stop in stops)), "")
        assert held == longest


def test_special_tokens_and_padding_rows_show_nothing(pair: Any) -> None:
    tokens, reference = pair
    special = reference.convert_tokens_to_ids("<|im_end|>")
    plain = reference.convert_tokens_to_ids("<tool_call>")
    assert (tokens.shown(special), tokens.of(special)) == (b"", b"<|im_end|>")
    assert tokens.shown(plain) == b"<tool_call>"
    assert tokens.of(VOCAB + 10_000) == tokens.of(-1) == b""
