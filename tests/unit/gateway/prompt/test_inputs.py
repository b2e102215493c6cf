"""A conversation is read once: every string, image and schema, in order."""

from typing import Any

import pytest

from gateway.media.images import ImageSource
from gateway.prompt.inputs import PromptInputs, PromptLimits
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCall,
)
from protos.wire.errors import InvalidRequest, Reason

TOOL = {"type": "function", "function": {"name": "look"}}


def test_everything_is_found_in_order_and_under_its_field() -> None:
    call = ToolCall(name="look", arguments={"at": ["sky"]}, call_id="c1")
    inputs = PromptInputs.of(
        Conversation(
            messages=(
                Message(role=Role.SYSTEM, content="Be brief."),
                Message(
                    role=Role.USER,
                    content=(ImagePart(data=b"a"), TextPart(text="What?"), ImagePart(data=b"b")),
                    name="Ann",
                ),
                Message(role=Role.ASSISTANT, content=None, tool_calls=(call,), reasoning="Hm."),
                Message(role=Role.TOOL, content="blue", tool_call_id="c1"),
            ),
            tools=(TOOL,),
        )
    )
    assert inputs.texts == ("Be brief.", "What?", "look", "at", "sky", "Hm.", "blue")
    in_tool = ("type", "function", "function", "name", "look")
    assert inputs.other_texts == (*in_tool, "Ann", "c1", "c1")
    assert inputs.images == (
        ImageSource("messages[1].content[0]", b"a"),
        ImageSource("messages[1].content[2]", b"b"),
    )
    assert inputs.tool_data == (
        ("tools[0]", TOOL),
        ("messages[2].tool_calls[0]", {"at": ["sky"]}),
    )
    assert inputs.part_count == 3


def test_schemas_are_read_however_deep_they_are_and_then_refused() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    message = Message(role=Role.USER, content="x")
    inputs = PromptInputs.of(Conversation(messages=(message,), tools=({"a": deep},)))
    assert inputs.other_texts == ("a", "bottom")
    with pytest.raises(InvalidRequest) as caught:
        inputs.check(PromptLimits())
    assert (caught.value.reason, caught.value.param) == (Reason.INVALID_SCHEMA, "tools[0]")
