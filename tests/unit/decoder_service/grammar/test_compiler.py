"""Compiling grammars: under limits, off the event loop, and no more of them than fit."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from decoder_service.grammar.checks import GrammarLimits, check_grammar
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.grammar import Grammar, GrammarKind
from decoder_service.grammar.vocabulary import GrammarVocabulary
from decoder_service.rpc.constraint import grammar_from_proto
from protos.bundle.manifest import BundleError
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Overloaded, Reason, ServiceError, Unsupported
from tests.unit.decoder_service.grammars import babble, json_schema, lark, regex, vocabulary

SLOW = json_schema({"type": "integer", "multipleOf": 10_000_019})
DEEP_STACK = lark(
    "start: R0\n" + "".join(f'R{n}: R{n + 1} "b"\n' for n in range(3500)) + 'R3500: "a"'
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def compiler() -> AsyncIterator[GrammarCompiler]:
    async with GrammarCompiler(vocabulary, GrammarLimits(compile_s=0.5)) as made:
        yield made


async def refusal(compiler: GrammarCompiler, grammar: Grammar) -> ServiceError:
    with pytest.raises(InvalidRequest) as caught:
        await compiler.constraint(grammar)
    assert caught.value.reason is Reason.INVALID_SCHEMA
    assert caught.value.param == grammar.field
    return caught.value


@pytest.mark.parametrize(
    "grammar",
    [
        json_schema({"type": "nonsense"}),
        json_schema({"type": "object", "unevaluatedProperties": False}),
        json_schema({"$ref": "#"}),
        json_schema({"type": "string", "pattern": "(a"}),
        json_schema({"$ref": "#/$defs/missing"}),
        regex("(a"),
        regex("(?=a)b"),
        lark("start: missing"),
        lark("rule: /a/"),
    ],
    ids=lambda grammar: grammar.text[:40],
)
async def test_a_grammar_that_makes_no_sense_is_refused(
    compiler: GrammarCompiler, grammar: Grammar
) -> None:
    error = await refusal(compiler, grammar)
    assert error.message.isprintable()
    assert "0x" not in error.message


async def test_a_grammar_that_takes_too_long_or_too_much_ends_its_helper_only(
    compiler: GrammarCompiler,
) -> None:
    neighbour = await compiler.constraint(regex("[0-9]+"))
    await refusal(compiler, SLOW)
    await refusal(compiler, DEEP_STACK)
    assert babble(neighbour)
    assert babble(await compiler.constraint(regex("[a-f]+")))


async def test_other_streams_go_on_while_a_grammar_is_compiled() -> None:
    # Far longer than the other grammar takes on a busy machine, and shorter than SLOW on any.
    limits = GrammarLimits(compile_s=8)
    async with GrammarCompiler(vocabulary, limits) as compiler:
        slow = asyncio.create_task(refusal(compiler, SLOW))
        await asyncio.wait_for(compiler.constraint(regex("[g-k]+")), timeout=60)
        assert not slow.done()
        await slow


async def test_one_grammar_is_compiled_once_for_all_who_want_it() -> None:
    async with GrammarCompiler(vocabulary, GrammarLimits(max_compiling=1)) as compiler:
        wanted = [compiler.constraint(regex("[0-9]+")) for _ in range(3)]
        assert len(await asyncio.gather(*wanted)) == 3
        assert len(compiler.cache) == 1


async def test_who_goes_away_leaves_the_compiling_to_the_others() -> None:
    async with GrammarCompiler(vocabulary, GrammarLimits()) as compiler:
        leaving, staying = (
            asyncio.create_task(compiler.constraint(regex("[0-9]+"))) for _ in range(2)
        )
        await asyncio.sleep(0)
        leaving.cancel()
        assert babble(await staying)
        assert leaving.cancelled()


async def test_more_grammars_than_may_wait_are_refused() -> None:
    limits = GrammarLimits(max_compiling=1)
    async with GrammarCompiler(vocabulary, limits) as compiler:
        first = asyncio.create_task(compiler.constraint(regex("[0-9]+")))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await compiler.constraint(regex("[a-z]+"))
        await first


async def test_the_cache_holds_no_more_than_its_bytes() -> None:
    limits = GrammarLimits(cache_bytes=1024 * 1024)
    async with GrammarCompiler(vocabulary, limits) as compiler:
        for number in range(200):
            schema = {"type": "object", "properties": {f"p{number}": {"type": "integer"}}}
            await compiler.constraint(json_schema(schema))
            assert 0 < compiler.cache.size_bytes <= limits.cache_bytes
        assert 2 < len(compiler.cache) < 200
        kept = len(compiler.cache)
        await compiler.constraint(json_schema(schema))
        assert len(compiler.cache) == kept


async def test_a_compiled_grammar_larger_than_a_share_of_the_cache_is_refused() -> None:
    limits = GrammarLimits(cache_bytes=1024 * 1024)
    schema = {"enum": [f"value {number}" for number in range(4000)]}
    async with GrammarCompiler(vocabulary, limits) as compiler:
        await refusal(compiler, json_schema(schema))


async def test_without_a_usable_tokenizer_there_is_no_structured_output() -> None:
    def missing() -> GrammarVocabulary:
        raise BundleError("the bundle lacks processor/tokenizer.json")

    async with GrammarCompiler(missing, GrammarLimits()) as compiler:
        with pytest.raises(Unsupported):
            await compiler.constraint(regex("a"))


def nested(depth: int) -> str:
    return '{"not":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar(kind=GrammarKind.JSON_SCHEMA, text="{"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, text="[]"),
        Grammar(kind=GrammarKind.JSON_SCHEMA, text=nested(33)),
        Grammar(kind=GrammarKind.JSON_SCHEMA, text=nested(9000)),
        json_schema({"enum": list(range(10_000))}),
        json_schema({"description": "x" * 2**20}),
        regex("a" * (64 * 1024 + 1)),
        regex(""),
        Grammar(kind=GrammarKind.CHOICE, text="[]"),
        Grammar(kind=GrammarKind.CHOICE, text='["a", ""]'),
        Grammar(kind=GrammarKind.CHOICE, text=json.dumps(["a"] * 5000)),
    ],
    ids=lambda grammar: grammar.text[:30],
)
async def test_a_grammar_beyond_the_limits_is_refused_unread(grammar: Grammar) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_grammar(grammar, GrammarLimits())
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_SCHEMA, grammar.field)


async def test_a_schema_at_the_limits_is_taken() -> None:
    check_grammar(Grammar(kind=GrammarKind.JSON_SCHEMA, text=nested(32)), GrammarLimits())


async def test_every_kind_comes_over_the_wire() -> None:
    messages = {
        GrammarKind.JSON_SCHEMA: decoder_pb2.Constraint(json_schema="{}"),
        GrammarKind.JSON_OBJECT: decoder_pb2.Constraint(json_object=True),
        GrammarKind.REGEX: decoder_pb2.Constraint(regex="a+"),
        GrammarKind.CHOICE: decoder_pb2.Constraint(choice=decoder_pb2.Choice(texts=["a", "b"])),
        GrammarKind.LARK: decoder_pb2.Constraint(lark='start: "a"'),
    }
    for kind, message in messages.items():
        assert (
            grammar_from_proto(message, GrammarLimits(), ignore_eos=False, vocab_size=100).kind
            is kind
        )


@pytest.mark.parametrize(
    ("message", "ignore_eos", "param"),
    [
        (decoder_pb2.Constraint(), False, "constraint"),
        (decoder_pb2.Constraint(json_object=False), False, "constraint.json_object"),
        (decoder_pb2.Constraint(regex="a"), True, "stop_conditions.ignore_eos"),
        (decoder_pb2.Constraint(regex="a", token_ids=[1]), False, "constraint.token_ids"),
        (decoder_pb2.Constraint(lark="a", token_ids=[100]), False, "constraint.token_ids"),
        (decoder_pb2.Constraint(lark="a", token_ids=range(17)), False, "constraint.token_ids"),
    ],
)
async def test_a_constraint_that_contradicts_itself_is_refused(
    message: decoder_pb2.Constraint, ignore_eos: bool, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        grammar_from_proto(message, GrammarLimits(), ignore_eos=ignore_eos, vocab_size=100)
    assert caught.value.param == param
