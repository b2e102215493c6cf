"""Prompts with tools on the demonstration model's own tokenizer and template, and plain prompts.

Its template tells of tools, calls and results in the words of Qwen3-VL's.
"""

from pathlib import Path
from typing import Any

import pytest

from gateway.http.chat.schemas import ChatCompletionRequest
from gateway.http.chat.translate import to_question
from gateway.prompt.builder import PromptBuilder
from gateway.request.conversation import PlainPrompt
from gateway.tools.form import form_of
from tests.support.oracle import Oracle, oracle
from tests.support.prompts import encoded, opened, processor_bundle
from tests.support.talks import DrawnImage
from tests.unit.gateway.stage import data_url

CHECKPOINT = Path(__file__).parents[2] / "deploy" / "demo" / "checkpoint"
IMAGE = encoded(DrawnImage(width=160, height=96).pixels(), "PNG")

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'Tells the weather, "now" & <b>here</b>.',
            "strict": True,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Zürich", "Genève"]}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "look"}},
]
SAID: Any = {
    "role": "assistant",
    "content": "I look.",
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Zürich"}'},
        },
        {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
    ],
}
TURNS: dict[str, list[Any]] = {
    "a question": [{"role": "user", "content": "What is the weather like?"}],
    "a system message too": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    ],
    "calls and results": [
        {"role": "user", "content": "Look at it."},
        SAID,
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain <b>."},
        {
            "role": "tool",
            "tool_call_id": "call_2",
            "content": [{"type": "image"}, {"type": "text", "text": "as seen"}],
        },
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "And there?"},
    ],
    "calls alone": [
        {"role": "user", "content": "Look at it."},
        {**SAID, "content": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
    ],
}


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    return PromptBuilder(processor_bundle(CHECKPOINT, tmp_path_factory.mktemp("bundle") / "it"))


@pytest.fixture(scope="module")
def reference() -> Oracle:
    return oracle(CHECKPOINT)


def as_sent(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn with its image as clients of OpenAI's API send it."""
    if not isinstance(turn["content"], list):
        return turn
    url = {"type": "image_url", "image_url": {"url": data_url(IMAGE)}}
    return {
        **turn,
        "content": [url if part["type"] == "image" else part for part in turn["content"]],
    }


def as_told(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as users of transformers write it: templates iterate over what is no string."""
    return {**turn, "content": turn["content"] or ""}


@pytest.mark.parametrize("case", TURNS)
def test_prompts_with_tools_equal_the_processors(
    builder: PromptBuilder, reference: Oracle, case: str
) -> None:
    body = {"messages": [as_sent(turn) for turn in TURNS[case]], "tools": TOOLS}
    question = to_question(ChatCompletionRequest.model_validate(body))
    prompt = builder.prepare(question.conversation)
    images = [opened(IMAGE)] * len(prompt.visuals)
    told = [as_told(turn) for turn in TURNS[case]]
    wanted = reference.prepare(told, images, tools=TOOLS)
    assert prompt.input_ids.tolist() == wanted.input_ids.tolist()
    assert prompt.position_ids.tolist() == wanted.position_ids.tolist()
    assert len(prompt.visuals) == (case == "calls and results")


def test_plain_prompts_equal_the_tokenizers(builder: PromptBuilder, reference: Oracle) -> None:
    for text in (
        "Once upon a time",
        " \n\n a  b\tc ",
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<think>",
        "Größe 日本語 😀 e\u0301",
        "a<|im_",
    ):
        ids = reference.processor.tokenizer(text)["input_ids"]
        assert builder.plain_ids(PlainPrompt(text=text)) == ids


def test_the_checkpoint_calls_tools_in_its_own_tokens(builder: PromptBuilder) -> None:
    question = to_question(
        ChatCompletionRequest.model_validate({"messages": TURNS["a question"], "tools": TOOLS})
    )
    form = form_of(question, question.callable_tools(), builder.calls, behind_thought=False)
    names = {token.token_id: token.content for token in builder.tokenizer.added}
    assert form.constraint is not None and form.begin is not None
    assert [names[one] for one in form.constraint.token_ids] == ["<tool_call>", "</tool_call>"]
    assert names[form.begin] == "<tool_call>"
