"""What the tests of structured output share: a small vocabulary and a model that babbles."""

import functools
import json
from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer

from decoder_service.grammar.grammar import Grammar, GrammarKind
from decoder_service.grammar.state import GrammarState
from decoder_service.grammar.vocabulary import GrammarVocabulary
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sampling.sampler import Sampler
from tests.support import tokenizers_tiny
from tests.support.sampling import choose

UNUSED_IDS = 21  # beyond the tokenizer's, as in real checkpoints


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    return tokenizers_tiny.train(300)


@functools.cache
def vocabulary() -> GrammarVocabulary:
    tokenizer = tiny_tokenizer()
    return GrammarVocabulary(
        tokenizer.to_str(),
        vocab_size=tokenizer.get_vocab_size() + UNUSED_IDS,
        eos_ids=eos_ids(),
    )


def eos_ids() -> tuple[int, int]:
    return token_id("<|im_end|>"), token_id("<|endoftext|>")


def token_id(name: str) -> int:
    found = tiny_tokenizer().token_to_id(name)
    assert found is not None
    return int(found)


def json_schema(schema: object) -> Grammar:
    return Grammar(kind=GrammarKind.JSON_SCHEMA, text=json.dumps(schema))


def regex(pattern: str) -> Grammar:
    return Grammar(kind=GrammarKind.REGEX, text=pattern)


def lark(text: str) -> Grammar:
    return Grammar(kind=GrammarKind.LARK, text=text)


def decoded(ids: Iterable[int]) -> str:
    """The text of tokens, special ones included."""
    return str(tiny_tokenizer().decode(list(ids), skip_special_tokens=False))


def babble(
    constraint: GrammarState, *, seed: int = 0, most: int = 400, temperature: float = 2.0
) -> str | None:
    """The text a model of random logits ends up with; None if it says more than `most` tokens.

    Ends of text are made likely, so that it does not go on for ever where it may end.
    """
    rng = np.random.default_rng(seed)
    sampler = Sampler(SamplingParams(temperature=temperature, seed=seed), np.zeros(1, np.int32), 1)
    said: list[int] = []
    for _ in range(most):
        logits = rng.standard_normal((1, vocabulary().vocab_size)).astype(np.float32) * 3
        logits[0, list(eos_ids())] += 20
        chosen = int(choose(logits, [sampler], [constraint])[0])
        if chosen in eos_ids():
            return decoded(said)
        said.append(chosen)
        constraint.accept(chosen)
        sampler.observe(chosen)
    return None
