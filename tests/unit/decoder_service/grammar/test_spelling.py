"""A grammar's text is spelled byte for byte, from ordinary tokens, whatever the text is."""

import json
import re
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.grammar import Grammar, choice_grammar
from decoder_service.grammar.vocabulary import GrammarVocabulary
from protos.bundle.manifest import BundleError
from tests.support.tokenizers_tiny import CONTROL_TOKENS, PLAIN_TOKENS
from tests.unit.decoder_service.grammars import (
    babble,
    decoded,
    eos_ids,
    json_schema,
    lark,
    regex,
    tiny_tokenizer,
    token_id,
    vocabulary,
)

# Each of them another text once Unicode's NFC is applied, which Qwen's tokenizer does.
DENORMAL = (
    "cafe\u0301",
    "\u212b",  # the Angstrom sign, of which NFC makes the letter
    "U\u0308bung.pdf",  # as macOS lists a file of that name
    "e\u0301" * 20,
    "\u1100\u1161\u11a8",  # a syllable of Hangul in three parts
    "\u0301",  # a mark that has nothing to stand on
)
NAMES = (*CONTROL_TOKENS, *PLAIN_TOKENS)
LIKE_NAMES = (*NAMES, "a<|im_end|>b", "<think>no</think>", "<|im_start|>user\n")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    async with GrammarCompiler(vocabulary, GrammarLimits()) as made:
        yield made


async def said(compiler: GrammarCompiler, grammar: Grammar) -> str | None:
    return babble(await compiler.constraint(grammar))


@pytest.mark.parametrize("text", [*DENORMAL, *LIKE_NAMES], ids=ascii)
async def test_a_text_is_said_as_it_was_given(compiler: GrammarCompiler, text: str) -> None:
    assert await said(compiler, choice_grammar([text])) == text
    assert await said(compiler, regex(re.sub(r"[.|]", r"\\\g<0>", text))) == text
    assert await said(compiler, lark(f"start: {json.dumps(text)}")) == text
    answer = await said(compiler, json_schema({"enum": [text]}))
    assert answer is not None and json.loads(answer) == text
    answer = await said(compiler, json_schema({"const": {text: text}}))
    assert answer is not None and json.loads(answer) == {text: text}


async def test_every_one_of_such_texts_can_be_chosen(compiler: GrammarCompiler) -> None:
    grammar = choice_grammar([*DENORMAL, *LIKE_NAMES])
    answers = {babble(await compiler.constraint(grammar), seed=seed) for seed in range(300)}
    assert answers <= {*DENORMAL, *LIKE_NAMES}
    assert len(answers) > 12


async def test_texts_of_one_normal_form_are_two_texts(compiler: GrammarCompiler) -> None:
    grammar = choice_grammar(["caf\u00e9", "cafe\u0301"])
    answers = {babble(await compiler.constraint(grammar), seed=seed) for seed in range(40)}
    assert answers == {"caf\u00e9", "cafe\u0301"}


@pytest.mark.parametrize("name", NAMES)
async def test_an_added_token_is_never_allowed(compiler: GrammarCompiler, name: str) -> None:
    constraint = await compiler.constraint(regex(r"(?s:.*)"))
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    constraint.mask(scores)
    assert (scores[token_id(name)] == 0.0) == (token_id(name) in eos_ids())


async def test_text_is_spelled_as_the_tokenizer_spells_it_where_it_can(
    compiler: GrammarCompiler,
) -> None:
    text = "The quick brown fox, 1234567890 naïve cafés"
    constraint = await compiler.constraint(choice_grammar([text]))
    spelled = []
    while True:
        scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
        constraint.mask(scores)
        allowed = np.flatnonzero(np.isfinite(scores)).tolist()
        if set(allowed) == set(eos_ids()):
            break
        (token,) = allowed
        spelled.append(token)
        constraint.accept(token)
    assert spelled == tiny_tokenizer().encode(text).ids
    assert decoded(spelled) == text


async def test_a_tokenizer_that_would_cut_or_pad_text_spells_it_whole() -> None:
    raw = json.loads(tiny_tokenizer().to_str())
    raw["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    short = GrammarVocabulary(
        json.dumps(raw), vocab_size=vocabulary().vocab_size, eos_ids=eos_ids()
    )
    async with GrammarCompiler(lambda: short, GrammarLimits()) as compiler:
        assert await said(compiler, choice_grammar(["a longer text"])) == "a longer text"


@pytest.mark.parametrize("text", ["{}", "[]", '{"model": {"vocab": []}, "added_tokens": []}', "{"])
async def test_a_tokenizer_of_another_form_is_told(text: str) -> None:
    with pytest.raises(BundleError):
        GrammarVocabulary(text, vocab_size=10, eos_ids=(1,))
