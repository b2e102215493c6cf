"""Token ids, spans and positions of the gateway against transformers' processor and model."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.prompt.families.qwen3_vl import QWEN3_VL
from gateway.prompt.inputs import PromptInputs
from gateway.prompt.long_texts import PIECE_CHARS
from gateway.request.conversation import Conversation, Message, Role, ToolCall
from tests.support import bundles
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import Oracle, Prepared, oracle
from tests.support.prompts import (
    answer,
    images_of,
    parts_of,
    png,
    processor_bundle,
    talk,
    transformers_messages,
    user,
    weather_tool,
)
from tests.support.tokenizers_tiny import CONTROL_TOKENS, PLAIN_TOKENS

SYSTEM = Message(role=Role.SYSTEM, content="You are terse. Größe: e\u0301 ≠ é.")
CALL = ToolCall(name="look", arguments={"where": "Zürich", "n": [1, 2.5, None, True]})
TEXT_CALL = ToolCall(name="look", arguments='{"where":  "here"}')

CASES: dict[str, Conversation] = {
    "text only": talk(user("What is two and two?")),
    "string content": talk(Message(role=Role.USER, content="Hello, 日本語 😀👍🏽\n\n  x")),
    "system and turns": talk(SYSTEM, user("one"), answer("two"), user("three")),
    "one image": talk(user(png(300, 400), "What is in this image?")),
    "five images of unlike sizes between text": talk(
        user(
            "a",
            png(64, 64),
            "b",
            png(640, 33),
            " c ",
            png(31, 500),
            png(257, 255),
            "d\n",
            png(100, 100),
            "e",
        )
    ),
    "images in several turns": talk(
        user(png(120, 80), "first"),
        answer("a cat"),
        user("second", png(80, 333)),
        answer("a dog"),
        user("which?", png(48, 48)),
    ),
    "a tool message with an image": talk(
        user("look there"),
        Message(role=Role.ASSISTANT, content=None, tool_calls=(CALL,)),
        Message(role=Role.TOOL, content=parts_of("seen:", png(200, 90)), tool_call_id="c1"),
        Message(role=Role.TOOL, content="nothing else"),
        tools=(weather_tool(), weather_tool("Größer & <b>")),
    ),
    "calls with text and text arguments": talk(
        user("go"),
        Message(role=Role.ASSISTANT, content="I look.", tool_calls=(CALL, TEXT_CALL)),
        Message(role=Role.TOOL, content="ok"),
        tools=(weather_tool(),),
    ),
    "numbered images": talk(
        user(png(64, 64), png(90, 64)), answer("yes"), user(png(64, 90)), add_vision_id=True
    ),
    "extreme aspect ratios": talk(user(png(2000, 10), png(5, 1000), "wide and tall", png(1, 1))),
    # 24, 32 and 16 pixels are half of, or one and a half times, the factors in use.
    "sizes that round to even": talk(
        user(*(png(w, h) for w, h in ((48, 272), (80, 272), (336, 240), (16, 304), (36, 60))))
    ),
}


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return bundles.checkpoint(request.param)


@pytest.fixture(scope="module")
def builder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    return PromptBuilder(processor_bundle(checkpoint, tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Oracle:
    return oracle(checkpoint)


def expected(reference: Oracle, conversation: Conversation) -> Prepared:
    numbering = {"add_vision_id": True} if conversation.add_vision_id else {}
    return reference.prepare(
        transformers_messages(conversation),
        images_of(conversation),
        tools=list(conversation.tools) or None,
        **numbering,
    )


def assert_equal(actual: PreparedPrompt, wanted: Prepared) -> None:
    assert actual.input_ids.dtype == actual.position_ids.dtype == np.int32
    assert actual.input_ids.tolist() == wanted.input_ids.tolist()
    assert np.array_equal(actual.position_ids, wanted.position_ids)
    assert actual.position_delta == wanted.delta
    grids = [] if wanted.image_grid_thw is None else wanted.image_grid_thw.tolist()
    assert [list(grid) for grid in actual.grids] == grids
    placeholders = np.zeros(len(actual.input_ids), dtype=np.int64)
    for span in actual.spans:
        placeholders[span.offset : span.offset + span.length] += 1
    assert np.array_equal(placeholders, wanted.mm_token_type_ids)


@pytest.mark.parametrize("case", CASES)
def test_prompt_equals_the_processors(builder: PromptBuilder, reference: Oracle, case: str) -> None:
    assert_equal(builder.prepare(CASES[case]), expected(reference, CASES[case]))


def test_every_case_with_images_has_its_spans(builder: PromptBuilder) -> None:
    counts = {case: len(builder.prepare(CASES[case]).spans) for case in CASES}
    assert counts["five images of unlike sizes between text"] == 5
    assert counts["images in several turns"] == counts["numbered images"] == 3
    assert counts["a tool message with an image"] == counts["one image"] == 1


def test_a_long_text_in_pieces_has_the_processors_tokens(
    builder: PromptBuilder, reference: Oracle
) -> None:
    line = "The lazy dog's 12 bones,  e\u0301. 日本語のテキスト。\n\t x\r\n 'll <|x 😀 \n"
    text = line * (4 * PIECE_CHARS // len(line)) + "a" * PIECE_CHARS
    conversation = talk(user(text))
    wanted = reference.prepare_text(
        reference.processor.apply_chat_template(
            transformers_messages(conversation), add_generation_prompt=True
        ),
        [],
    )
    assert builder.encode(PromptInputs.of(conversation)) == wanted.input_ids.tolist()


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(st.sampled_from("e\u0301\u0338\u0327 \n\tAÅ\u212a'<>|_ſ1"), max_size=20),
    # Hypothesis also draws strings that it finds in the code under test.
).filter(lambda text: not any(token in text for token in (*CONTROL_TOKENS, *PLAIN_TOKENS)))
IMAGE = st.tuples(st.integers(1, 150), st.integers(1, 150)).map(lambda size: png(*size))
PARTS = st.lists(st.one_of(TEXT, IMAGE), min_size=1, max_size=4)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
CALLS = st.builds(
    ToolCall,
    name=TEXT,
    arguments=st.one_of(TEXT, st.dictionaries(TEXT, JSON, max_size=3)),
)


# What a model says: its text, with calls and thoughts in its own tokens.
SAID = st.lists(st.one_of(TEXT, st.sampled_from(QWEN3_VL.spoken_tokens)), max_size=5).map("".join)


def turn(kind: str, draw: st.DrawFn) -> Message:
    if kind == "user":
        return draw(st.one_of(PARTS.map(lambda parts: user(*parts)), TEXT.map(user_text)))
    if kind == "tool":
        return Message(role=Role.TOOL, content=parts_of(*draw(PARTS)))
    if kind == "assistant":
        calls = tuple(draw(st.lists(CALLS, max_size=2)))
        return Message(role=Role.ASSISTANT, content=draw(SAID), tool_calls=calls)
    return Message(role=Role.SYSTEM, content=draw(TEXT))


def user_text(text: str) -> Message:
    return Message(role=Role.USER, content=text)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    first = draw(st.sampled_from([(), ("system",)]))
    kinds = (*first, "user", *draw(st.lists(st.sampled_from(["user", "assistant", "tool"]))))
    messages = (user("so:"), *(turn(kind, draw) for kind in kinds[:6]))
    tools = draw(st.lists(st.builds(weather_tool, TEXT), max_size=2))
    if first:
        messages = messages[1:2] + messages[:1] + messages[2:]
    return Conversation(messages=messages, tools=tuple(tools), add_vision_id=draw(st.booleans()))


@given(conversation=conversations())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_conversation_whose_clients_write_no_token_equals_the_processors(
    builder: PromptBuilder, reference: Oracle, conversation: Conversation
) -> None:
    assert_equal(builder.prepare(conversation), expected(reference, conversation))


@functools.cache
def fragments() -> tuple[str, ...]:
    return (
        *("<|im_end|>", "<|im_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_start|>"),
        *("<tool_call>", "</tool_call>", "</think>", "<|endoftext|>", "<|im_", "end|>", "<", ">"),
        *("|", "<|", "|>", "im_end", "im_", "image_pad|>", "tool_call>", "a", " ", "\n", "x y"),
    )


SPOOF = st.lists(st.sampled_from(fragments()), min_size=1, max_size=8).map("".join)
SPOOFED_PARTS = st.lists(SPOOF, min_size=1, max_size=5)


def spoofed(parts: list[str], name: str, key: str, said: str | None = None) -> Conversation:
    tool = {"type": "function", "function": {"name": name, key: parts, "parameters": {key: name}}}
    call = ToolCall(name=name, arguments={key: parts[0]})
    return talk(
        Message(role=Role.SYSTEM, content=parts_of(*parts)),
        user(*parts, png(20, 20), *parts),
        Message(role=Role.ASSISTANT, content=said or parts[0], tool_calls=(call,)),
        Message(role=Role.TOOL, content=parts_of(*parts)),
        Message(role=Role.USER, content=parts[-1]),
        tools=(tool,),
    )


@given(parts=SPOOFED_PARTS, name=SPOOF, key=SPOOF)
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_token_strings_of_the_client_stay_text(
    builder: PromptBuilder, reference: Oracle, parts: list[str], name: str, key: str
) -> None:
    conversation = spoofed(parts, name, key)
    ids = builder.encode(PromptInputs.of(conversation))
    added = {token.token_id for token in builder.tokenizer.added}
    # Each text as long as it was, so that the template makes the same structure; an answer keeps
    # the tokens that are its own.
    own = "".join(re.findall("|".join(QWEN3_VL.spoken_tokens), parts[0]))
    harmless = spoofed(["x" for _ in parts], "x", "x", said=own or "x")
    structure = [token for token in builder.encode(PromptInputs.of(harmless)) if token in added]
    assert [token for token in ids if token in added] == structure
    processor = reference.processor
    text = processor.apply_chat_template(
        transformers_messages(conversation),
        tools=list(conversation.tools),
        add_generation_prompt=True,
    )
    assert processor.tokenizer.decode(ids, skip_special_tokens=False) == text
