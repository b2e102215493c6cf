"""Structured output: whatever a model wants to say, what it says has the form asked for."""

import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict, Field

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.grammar import Grammar, GrammarKind, choice_grammar
from decoder_service.sampling.logprobs import token_logprobs
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from protos.wire.errors import InvalidRequest, Reason
from tests.support.sampling import choose
from tests.unit.decoder_service.grammars import (
    UNUSED_IDS,
    babble,
    decoded,
    eos_ids,
    json_schema,
    lark,
    regex,
    token_id,
    vocabulary,
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Person(Strict):
    name: Annotated[str, Field(max_length=12)]
    age: Annotated[int, Field(ge=0, le=150)]
    tags: Annotated[list[Literal["a", "b", "ß"]], Field(max_length=3)] = []
    score: Annotated[float, Field(multiple_of=0.5)] | None = None


class Node(Strict):
    value: bool
    next: "Node | None" = None


PERSON = Person.model_json_schema()
TREE = Node.model_json_schema()
TEXTS = ["red", "green", 'a "quoted"\n\\ text', "日本 😀", "red circle"]
SUM = 'start: term ("+" term)*\nterm: /[0-9]{1,3}/ | "(" start ")"'


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    async with GrammarCompiler(vocabulary, GrammarLimits()) as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


def fits_person(text: str) -> None:
    Person.model_validate_json(text)


def fits_tree(text: str) -> None:
    Node.model_validate_json(text)


def is_object(text: str) -> None:
    assert isinstance(json.loads(text), dict)


def is_code(text: str) -> None:
    assert re.fullmatch(r"[A-Z]{2,3}-[0-9]{1,6}(\.é)?", text)


def is_choice(text: str) -> None:
    assert text in TEXTS


def is_sum(text: str) -> None:
    assert isinstance(eval(re.sub(r"\b0+(\d)", r"\1", text)), int)  # digits, "+", "(", ")" only


KINDS: list[tuple[Grammar, Callable[[str], None]]] = [
    (json_schema(PERSON), fits_person),
    (json_schema(TREE), fits_tree),
    (Grammar(kind=GrammarKind.JSON_OBJECT, text=""), is_object),
    (regex(r"[A-Z]{2,3}-[0-9]{1,6}(\.é)?"), is_code),
    (choice_grammar(TEXTS), is_choice),
    (lark(SUM), is_sum),
]


@pytest.mark.parametrize(("grammar", "check"), KINDS, ids=[kind.kind for kind, _ in KINDS])
async def test_whatever_is_sampled_has_the_form(
    compiler: GrammarCompiler, grammar: Grammar, check: Callable[[str], None]
) -> None:
    texts = [babble(await compiler.constraint(grammar), seed=seed) for seed in range(25)]
    complete = [text for text in texts if text is not None]
    assert len(complete) >= 10  # random text may go on for ever
    for text in complete:
        check(text)


async def test_every_choice_can_be_said(compiler: GrammarCompiler) -> None:
    grammar = choice_grammar(TEXTS)
    said = {babble(await compiler.constraint(grammar), seed=seed) for seed in range(120)}
    assert said == {"red", "green", 'a "quoted"\n\\ text', "日本 😀"} | (said & {"red circle"})


async def test_special_tokens_and_unused_ids_are_never_allowed(compiler: GrammarCompiler) -> None:
    constraint = await compiler.constraint(regex(r"(?s:.*)"))
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    constraint.mask(scores)
    assert (scores[-UNUSED_IDS:] == -np.inf).all()
    assert scores[token_id("<|image_pad|>")] == -np.inf
    assert scores[list(eos_ids())].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("source", ["start: <|image_pad|>", "start: <[{image}]> | <[{unused}]>"])
async def test_a_grammar_cannot_name_special_tokens(compiler: GrammarCompiler, source: str) -> None:
    image, unused = token_id("<|image_pad|>"), vocabulary().vocab_size - 1
    with pytest.raises(InvalidRequest) as caught:
        await compiler.constraint(lark(source.format(image=image, unused=unused)))
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_SCHEMA, "constraint.lark")


async def test_only_an_end_may_follow_what_is_complete(compiler: GrammarCompiler) -> None:
    constraint = await compiler.constraint(choice_grammar(["a"]))
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    constraint.mask(scores)
    (first,) = np.flatnonzero(np.isfinite(scores))
    assert decoded([int(first)]) == "a"
    constraint.accept(int(first))
    scores[:] = 0
    constraint.mask(scores)
    assert set(np.flatnonzero(np.isfinite(scores)).tolist()) == set(eos_ids())


def _sampler(seed: int, **params: Any) -> Sampler:
    return Sampler(SamplingParams(seed=seed, **params), np.zeros(1, np.int32), 8)


async def test_constrained_rows_leave_their_batch_mates_alone(compiler: GrammarCompiler) -> None:
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((6, vocabulary().vocab_size)).astype(np.float32) * 3
    settings = [{"temperature": 0.0}, {"temperature": 1.5}, {"top_p": 0.6, "top_k": 40}] * 2
    alone = choose(logits, [_sampler(9, **params) for params in settings])
    masks = [None, None, None, *[await compiler.constraint(json_schema(PERSON)) for _ in range(3)]]
    raw = logits.copy()
    mixed = choose(logits, [_sampler(9, **params) for params in settings], masks)
    assert mixed[:3].tolist() == alone[:3].tolist()
    assert {decoded([token])[0] for token in mixed[3:].tolist()} == {"{"}
    assert (logits == raw).all()  # so that log-probabilities are of what the model said


async def test_a_filter_keeps_no_banned_token(compiler: GrammarCompiler) -> None:
    constraint = await compiler.constraint(choice_grammar(["yes", "no"]))
    logits = np.zeros((1, vocabulary().vocab_size), dtype=np.float32)
    for params in ({"top_k": 300}, {"top_p": 0.9999}, {"min_p": 0.0, "top_p": 0.5}):
        (token,) = choose(logits, [_sampler(3, **params)], [constraint])
        assert decoded([int(token)])[0] in "yn"


async def test_logprobs_are_of_the_model_without_the_grammar(compiler: GrammarCompiler) -> None:
    logits = np.zeros((1, vocabulary().vocab_size), dtype=np.float32)
    tokens = choose(logits, [_sampler(3)], [await compiler.constraint(choice_grammar(["yes"]))])
    report = token_logprobs(logits[0], int(tokens[0]), 0)
    assert report.logprob == pytest.approx(-np.log(vocabulary().vocab_size))


async def test_a_mask_may_be_asked_for_again(compiler: GrammarCompiler) -> None:
    constraint = await compiler.constraint(json_schema(PERSON))
    first, again = (np.zeros(vocabulary().vocab_size, dtype=np.float32) for _ in range(2))
    constraint.mask(first)
    constraint.accept(int(np.flatnonzero(np.isfinite(first))[0]))
    for scores in (first, again):
        scores[:] = 0
        constraint.mask(scores)
    assert (first == again).all()


async def test_two_sequences_of_one_grammar_are_at_places_of_their_own(
    compiler: GrammarCompiler,
) -> None:
    one, other = [await compiler.constraint(regex("ab|cd")) for _ in range(2)]
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    one.mask(scores)
    one.accept(token_id("a"))
    scores[:] = 0
    other.mask(scores)
    assert scores[token_id("c")] == 0
    scores[:] = 0
    one.mask(scores)
    assert np.isfinite(scores).nonzero()[0].tolist() == [token_id("b")]


async def test_a_token_that_does_not_fit_fails_its_sequence_only(
    compiler: GrammarCompiler,
) -> None:
    lost, other = [await compiler.constraint(regex("(ab|cd)+x")) for _ in range(2)]
    lost.accept(token_id("x"))
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    with pytest.raises(InvalidRequest) as caught:
        lost.mask(scores)
    assert caught.value.reason is Reason.INVALID_SCHEMA
    other.mask(scores)
    assert scores[token_id("a")] == 0
