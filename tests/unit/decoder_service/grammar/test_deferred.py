"""A thought is free, the answer behind it has the form asked for."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.deferred import Deferred
from decoder_service.grammar.grammar import choice_grammar
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from tests.unit.decoder_service.grammars import decoded, eos_ids, token_id, vocabulary

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
