"""A thought is told from its answer by tokens, wherever these are cut."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.answer.calls import Calls
from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.answer.events import AnswerText, AnswerThought, OutputToken
from gateway.answer.thoughts import Thoughts
from gateway.answer.transcript import Transcript
from gateway.prompt.families.family import ThoughtTokens
from gateway.prompt.tokenizer import PromptTokenizer
from tests.support.prompts import processor_files


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PromptTokenizer:
    return PromptTokenizer.from_folder(processor_files(tmp_path_factory.mktemp("files") / "it"))


def told(
    tokenizer: PromptTokenizer,
    said: str,
    *,
    has_begun: bool = False,
    cuts: Sequence[int] = (),
    thinks: bool = True,
    stops: Sequence[str] = (),
) -> tuple[str, str]:
    """Thought and answer of a model's text, its tokens coming in groups."""
    ids = {token.content: token.token_id for token in tokenizer.added}
    around = ThoughtTokens(ids["<think>"], ids["</think>"]) if thinks else None
    spelled = TokenBytes(tokenizer)
    transcript = Transcript(
        Detokenizer(spelled, stops),
        Thoughts(spelled, around, has_begun=has_begun),
        Calls(spelled, None),
    )
    tokens = [OutputToken(token_id=one) for one in tokenizer.encode_prompt(said, "\ufdd0").ids]
    edges = sorted({0, len(tokens), *(cut % (len(tokens) + 1) for cut in cuts)})
    events = [event for a, b in pairwise(edges) for event in transcript.add(tokens[a:b])]
    assert [token for event in events for token in event.tokens] == (
        tokens[: transcript.token_count]
    )
    if not transcript.stopped:
        events += transcript.finish()
    thought = "".join(event.text for event in events if isinstance(event, AnswerThought))
    answer = "".join(event.text for event in events if isinstance(event, AnswerText))
    return thought, answer


@pytest.mark.parametrize(
    ("said", "has_begun", "expected"),
    [
        (
            "<think>\nA blue\n\nsquare?\n</think>\n\nBlue.\n",
            False,
            ("A blue\n\nsquare?", "Blue.\n"),
        ),
        ("A square?\n</think>\n\nBlue.", True, ("A square?", "Blue.")),
        ("<think>\nA square?\n</think>\n\nBlue.", True, ("A square?", "Blue.")),
        ("<think>\n\n</think>\n\nBlue.", False, ("", "Blue.")),
        ("Blue.", False, ("", "Blue.")),
        ("\n Blue.", False, ("", "\n Blue.")),
        # Ended within the thought.
        ("A square?\n", True, ("A square?", "")),
        # Only what an answer begins with is a thought.
        ("So <think>it</think>", False, ("", "So <think>it</think>")),
        ("x</think>y<think>z</think>", True, ("x", "y<think>z</think>")),
    ],
)
@given(cuts=st.lists(st.integers(0, 100), max_size=6))
def test_thought_and_answer_are_told_apart(
    tokenizer: PromptTokenizer,
    said: str,
    has_begun: bool,
    expected: tuple[str, str],
    cuts: list[int],
) -> None:
    assert told(tokenizer, said, has_begun=has_begun, cuts=cuts) == expected


def test_text_that_reads_like_the_tokens_ends_no_thought(tokenizer: PromptTokenizer) -> None:
    ids = tokenizer.encode_text("a</think>b")
    spelled = TokenBytes(tokenizer)
    added = {token.content: token.token_id for token in tokenizer.added}
    around = ThoughtTokens(added["<think>"], added["</think>"])
    thoughts = Thoughts(spelled, around, has_begun=True)
    assert "".join(thoughts.push(one) or "" for one in ids) == "a</think>b"


def test_models_that_do_not_think_keep_their_text(tokenizer: PromptTokenizer) -> None:
    said = "<think>\nx\n</think>\n\ny"
    assert told(tokenizer, said, thinks=False) == ("", said)


def test_stop_strings_look_at_the_answer_alone(tokenizer: PromptTokenizer) -> None:
    said = "one. two\n\n</think>\n\nthree\n\nfour"
    assert told(tokenizer, said, has_begun=True, stops=["two", "\n\n"]) == ("one. two", "three")
