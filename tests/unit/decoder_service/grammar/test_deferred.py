"""A thought is free, the answer behind it has the form asked for."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.deferred import Deferred
from decoder_service.grammar.grammar import Grammar, GrammarKind, choice_grammar
from decoder_service.grammar.state import GrammarState
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from protos.wire.errors import InvalidRequest
from tests.unit.decoder_service.grammars import (
    decoded,
    eos_ids,
    json_schema,
    lark,
    tiny_tokenizer,
    token_id,
    vocabulary,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

END = "</think>"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    async with GrammarCompiler(vocabulary, GrammarLimits()) as made:
        yield made


async def deferred(compiler: GrammarCompiler) -> Deferred:
    state = await compiler.constraint(choice_grammar(["red", "green"]))
    return Deferred(state, after=token_id(END), ends=eos_ids())


async def test_what_follows_the_token_fits_the_grammar(compiler: GrammarCompiler) -> None:
    for seed in range(10):
        constraint = await deferred(compiler)
        said: list[int] = []
        rng = np.random.default_rng(seed)
        sampler = Sampler(SamplingParams(seed=seed), np.zeros(1, np.int32), 1)
        for step in range(200):
            logits = rng.standard_normal(vocabulary().vocab_size).astype(np.float32)
            logits[list(eos_ids())] += 20  # the model would rather stop at once
            logits[token_id(END)] += 15 if step > 10 else -30
            token = sampler.choose(logits, constraint)
            assert token is not None
            if token in eos_ids():
                break
            said.append(token)
            constraint.accept(token)
        thought, _, answer = decoded(said).partition(END)
        assert answer in ("red", "green")
        assert len(thought) > 10


async def test_before_the_token_everything_but_an_end_is_free(compiler: GrammarCompiler) -> None:
    constraint = await deferred(compiler)
    for _ in range(2):  # masks may be repeated
        scores = np.zeros(vocabulary().vocab_size, np.float32)
        constraint.mask(scores)
        assert np.flatnonzero(np.isinf(scores)).tolist() == sorted(eos_ids())


CALL = Grammar(
    kind=GrammarKind.LARK,
    text="start: token_0 /[^#]{1,90}/ token_1",
    token_ids=(token_id("<tool_call>"), token_id("</tool_call>")),
)


def banned_by(constraint: Deferred | GrammarState) -> set[int]:
    scores = np.zeros(vocabulary().vocab_size, np.float32)
    constraint.mask(scores)
    return set(np.flatnonzero(np.isinf(scores)).tolist())


async def test_from_its_first_token_on_the_grammar_holds(compiler: GrammarCompiler) -> None:
    begin, end = CALL.token_ids
    constraint = Deferred(await compiler.constraint(CALL), begin=begin, ends=eos_ids())
    for token in tiny_tokenizer().encode("free text").ids:
        assert banned_by(constraint) == set()  # even an end
        constraint.accept(token)
    constraint.accept(begin)
    assert {begin, end, *eos_ids()} <= banned_by(constraint)
    # The texts of the tokens are spelled with ordinary ones, never with the tokens.
    for token in tiny_tokenizer().encode("a <tool").ids + tiny_tokenizer().encode("_call>").ids:
        assert token not in banned_by(constraint)
        constraint.accept(token)
    assert begin in banned_by(constraint) and end not in banned_by(constraint)
    constraint.accept(end)
    assert not banned_by(constraint) & {*eos_ids()}
    assert len(banned_by(constraint)) == vocabulary().vocab_size - len(eos_ids())


async def test_within_a_thought_the_first_token_of_the_grammar_is_a_thought(
    compiler: GrammarCompiler,
) -> None:
    state = await compiler.constraint(CALL)
    begin, after = CALL.token_ids[0], token_id(END)
    constraint = Deferred(state, after=after, begin=begin, ends=eos_ids())
    constraint.accept(begin)
    assert banned_by(constraint) == {*eos_ids()}
    constraint.accept(after)
    assert banned_by(constraint) == set()
    constraint.accept(begin)
    assert {*eos_ids()} < banned_by(constraint)


async def test_only_a_grammar_that_names_added_tokens_may_use_them(
    compiler: GrammarCompiler,
) -> None:
    begin, end = CALL.token_ids
    other = Grammar(kind=GrammarKind.LARK, text=f'start: <[{begin}]> | "x"', token_ids=(end,))
    with pytest.raises(InvalidRequest):  # the trial's vocabulary has no such token
        await compiler.constraint(other)
    assert begin in banned_by(await compiler.constraint(lark("start: /(.|\\n)*/")))


async def test_an_output_begun_elsewhere_stands_where_it_stood_there(
    compiler: GrammarCompiler,
) -> None:
    begin, end = CALL.token_ids
    after = token_id(END)
    said = [begin, *tiny_tokenizer().encode("a thought").ids, after]
    said += [*tiny_tokenizer().encode("free, then").ids, begin]
    said += [*tiny_tokenizer().encode("called").ids, end]

    async def made() -> Deferred:
        state = await compiler.constraint(CALL)
        return Deferred(state, after=after, begin=begin, ends=eos_ids())

    whole = await made()
    for cut in range(len(said) + 1):
        resumed = await made()
        await resumed.resume(said[:cut])
        assert banned_by(resumed) == banned_by(whole)
        if cut < len(said):
            resumed.accept(said[cut])
            whole.accept(said[cut])
            assert banned_by(resumed) == banned_by(whole)


async def test_an_output_that_the_grammar_never_allowed_is_refused_by_name(
    compiler: GrammarCompiler,
) -> None:
    for grammar, text in ((choice_grammar(["red", "green"]), "blue"), (json_schema({}), "x")):
        constraint = await compiler.constraint(grammar)
        with pytest.raises(InvalidRequest) as caught:
            await constraint.resume(tiny_tokenizer().encode(text).ids)
        assert caught.value.param == "output_ids"
    held = await deferred(compiler)
    with pytest.raises(InvalidRequest):
        await held.resume([token_id(END), *tiny_tokenizer().encode("blue").ids])
