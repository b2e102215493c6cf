"""White space in JSON: one blank after each colon and comma, unless a request wants another."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from decoder_service.grammar.checks import GrammarLimits
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.grammar import Grammar, GrammarKind, JsonWhitespace
from decoder_service.grammar.state import GrammarState
from decoder_service.rpc.constraint import grammar_from_proto
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Reason
from tests.unit.decoder_service.grammars import (
    babble,
    eos_ids,
    json_schema,
    tiny_tokenizer,
    vocabulary,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "b": {"type": "object", "properties": {"c": {"enum": ["x, y: z"]}}, "required": ["c"]},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}
SCHEMA["properties"]["b"]["additionalProperties"] = False
VALUE = {"a": [1, 2], "b": {"c": "x, y: z"}}
SPACED = json.dumps(VALUE)
COMPACT = json.dumps(VALUE, separators=(",", ":"))
INDENTED = json.dumps(VALUE, indent=2)
NO_WHITESPACE = JsonWhitespace(is_disabled=True)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    async with GrammarCompiler(vocabulary, GrammarLimits()) as made:
        yield made


def styled(whitespace: JsonWhitespace, **guidance: Any) -> Grammar:
    schema = SCHEMA | ({"x-guidance": guidance} if guidance else {})
    return Grammar(kind=GrammarKind.JSON_SCHEMA, text=json.dumps(schema), whitespace=whitespace)


def takes(constraint: GrammarState, text: str) -> bool:
    """Whether an answer may be this text, to its end."""
    for token in tiny_tokenizer().encode(text).ids:
        if not _is_allowed(constraint, token):
            return False
        constraint.accept(token)
    return _is_allowed(constraint, eos_ids()[0])


def _is_allowed(constraint: GrammarState, token: int) -> bool:
    scores = np.zeros(vocabulary().vocab_size, dtype=np.float32)
    constraint.mask(scores)
    return bool(np.isfinite(scores[token]))


async def test_by_default_one_blank_follows_each_colon_and_comma(
    compiler: GrammarCompiler,
) -> None:
    texts = [babble(await compiler.constraint(json_schema(SCHEMA)), seed=at) for at in range(20)]
    complete = [text for text in texts if text is not None]
    assert len(complete) > 10
    for text in complete:
        assert text == json.dumps(json.loads(text))


async def test_any_object_has_the_same_style(compiler: GrammarCompiler) -> None:
    grammar = Grammar(kind=GrammarKind.JSON_OBJECT, text="")
    texts = [babble(await compiler.constraint(grammar), seed=at) for at in range(30)]
    complete = [text for text in texts if text is not None]
    assert len(complete) > 10
    for text in complete:
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)  # without what strings hold
        assert not re.search(r"[:,](?! )|[:,]  |(?<![:,]) ", bare), text


@pytest.mark.parametrize(
    ("grammar", "taken"),
    [
        (styled(JsonWhitespace()), {SPACED}),
        (styled(NO_WHITESPACE), {COMPACT}),
        (styled(JsonWhitespace(pattern="")), {COMPACT}),
        (styled(JsonWhitespace(pattern=" ")), {SPACED, COMPACT}),
        (styled(JsonWhitespace(pattern="[ ]?")), {SPACED, COMPACT}),
        (styled(JsonWhitespace(pattern=r"[\n\t ]*")), {SPACED, COMPACT, INDENTED}),
        (styled(JsonWhitespace(pattern=r"\s{1,5}")), {SPACED, COMPACT, INDENTED}),
        # A schema may say it itself, the request's own field is nearer.
        (styled(JsonWhitespace(), whitespace_flexible=True), {SPACED}),
        (styled(JsonWhitespace(), item_separator=",", key_separator=":"), {COMPACT}),
        (styled(NO_WHITESPACE, whitespace_pattern=" "), {COMPACT}),
        (styled(JsonWhitespace(pattern=" "), key_separator=" : "), {SPACED, COMPACT}),
    ],
    ids=lambda value: str(value)[-90:] if isinstance(value, Grammar) else None,
)
async def test_a_request_says_what_may_stand_between_tokens(
    compiler: GrammarCompiler, grammar: Grammar, taken: set[str]
) -> None:
    for text in (SPACED, COMPACT, INDENTED):
        assert takes(await compiler.constraint(grammar), text) == (text in taken), text


async def test_styles_of_one_schema_are_grammars_of_their_own(compiler: GrammarCompiler) -> None:
    for _ in range(2):  # the second time from the cache
        assert takes(await compiler.constraint(styled(NO_WHITESPACE)), COMPACT)
        assert takes(await compiler.constraint(styled(JsonWhitespace())), SPACED)


@pytest.mark.parametrize("pattern", ["(", "a" * (64 * 1024), "(?=a)b"])
async def test_a_pattern_that_cannot_be_used_is_refused(
    compiler: GrammarCompiler, pattern: str
) -> None:
    message = decoder_pb2.Constraint(json_schema="{}", whitespace_pattern=pattern)
    with pytest.raises(InvalidRequest) as caught:
        await compiler.constraint(
            grammar_from_proto(message, compiler.limits, ignore_eos=False, vocab_size=100)
        )
    assert caught.value.reason is Reason.INVALID_SCHEMA


@pytest.mark.parametrize(
    ("message", "whitespace"),
    [
        (decoder_pb2.Constraint(json_schema="{}"), JsonWhitespace()),
        (
            decoder_pb2.Constraint(json_schema="{}", whitespace_pattern=" ?"),
            JsonWhitespace(pattern=" ?"),
        ),
        (
            decoder_pb2.Constraint(json_object=True, whitespace_pattern=""),
            JsonWhitespace(pattern=""),
        ),
        (decoder_pb2.Constraint(json_object=True, disable_any_whitespace=True), NO_WHITESPACE),
    ],
)
async def test_it_comes_over_the_wire(
    message: decoder_pb2.Constraint, whitespace: JsonWhitespace
) -> None:
    grammar = grammar_from_proto(message, GrammarLimits(), ignore_eos=False, vocab_size=100)
    assert grammar.whitespace == whitespace


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (
            decoder_pb2.Constraint(regex="a", whitespace_pattern=" "),
            "constraint.whitespace_pattern",
        ),
        (
            decoder_pb2.Constraint(lark='start: "a"', disable_any_whitespace=True),
            "constraint.disable_any_whitespace",
        ),
        (
            decoder_pb2.Constraint(json_schema="{}", disable_any_whitespace=False),
            "constraint.disable_any_whitespace",
        ),
    ],
)
async def test_where_it_means_nothing_it_is_refused(
    message: decoder_pb2.Constraint, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar_from_proto(message, GrammarLimits(), ignore_eos=False, vocab_size=100)
    assert caught.value.param == param
