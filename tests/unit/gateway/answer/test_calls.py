"""Calls are told from text by their tokens, wherever these are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer.calls import Calls
from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.answer.events import OutputToken
from gateway.answer.spoken import Spoken, spoken
from gateway.answer.thoughts import Thoughts
from gateway.answer.transcript import Transcript
from gateway.prompt.families.family import ThoughtTokens
from gateway.prompt.tokenizer import PromptTokenizer
from gateway.tools.format import CallFormat
from gateway.tools.json_calls import JSON_CALLS
from tests.support.prompts import processor_files

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "é\\n日"}}\n</tool_call>'


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    return PromptTokenizer.from_folder(processor_files(tmp_path_factory.mktemp("files") / "it"))


def told(
    tokenizer: PromptTokenizer,
    said: str,
    *,
    cuts: tuple[int, ...] = (),
    stops: tuple[str, ...] = (),
    thinks: bool = False,
    min_tokens: int = 0,
) -> Spoken:
    ids = {token.content: token.token_id for token in tokenizer.added}
    spelled = TokenBytes(tokenizer)
    form = CallFormat(JSON_CALLS, ids["<tool_call>"], ids["</tool_call>"])
    around = ThoughtTokens(ids["<think>"], ids["</think>"]) if thinks else None
    transcript = Transcript(
        Detokenizer(spelled, stops, holds_newlines=True),
        Thoughts(spelled, around, has_begun=False, call_begin=form.begin),
        Calls(spelled, form),
        min_tokens=min_tokens,
    )
    tokens = [OutputToken(token_id=one) for one in tokenizer.encode_prompt(said, "\ufdd0").ids]
    edges = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    events = [event for a, b in pairwise(edges) for event in transcript.add(tokens[a:b])]
    taken = [token for event in events for token in event.tokens]
    assert taken == tokens[: transcript.token_count]
    if not transcript.stopped:
        assert transcript.token_count == len(tokens)
        events += transcript.finish()
    return spoken(events)


@given(cuts=st.lists(st.integers(0, 100)))
def test_however_tokens_are_cut_text_and_calls_are_the_same(
    tokenizer: PromptTokenizer, cuts: list[int]
) -> None:
    said = told(tokenizer, f"I look.\n\n{CALL}\n{CALL}", cuts=tuple(cuts))
    assert said.text == "I look."
    assert [(call.name, call.arguments) for call in said.calls] == [("f", '{"a": "é\\n日"}')] * 2


def test_line_breaks_before_no_call_are_text(tokenizer: PromptTokenizer) -> None:
    assert told(tokenizer, "a\n\nb\n").text == "a\n\nb\n"
    assert told(tokenizer, f"{CALL}\n").text == ""


def test_a_stop_string_ends_text_with_its_line_breaks(tokenizer: PromptTokenizer) -> None:
    assert told(tokenizer, "a\nEND b", stops=("END",)).text == "a\n"
    held = told(tokenizer, f"a E{CALL}", stops=("END",))
    assert (held.text, len(held.calls)) == ("a E", 1)


def test_a_call_ends_a_thought_that_the_answer_began(tokenizer: PromptTokenizer) -> None:
    said = told(tokenizer, f"<think>\nHm.\n{CALL}", thinks=True)
    assert (said.thought, said.text, len(said.calls)) == ("Hm.", "", 1)


def test_stop_strings_end_nothing_within_the_least_tokens(tokenizer: PromptTokenizer) -> None:
    text = "a END b END c"
    first = len(tokenizer.encode_text("a END"))
    assert told(tokenizer, text, stops=("END",)).text == "a "
    assert told(tokenizer, text, stops=("END",), min_tokens=first).text == "a END b "
