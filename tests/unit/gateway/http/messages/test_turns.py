"""What Anthropic's turns become."""

from typing import Any

import pytest

from gateway.http.door.typed import Given
from gateway.http.fields import UnknownFields
from gateway.http.messages import turns
from gateway.request.conversation import Message, Role, TextPart, ToolCall
from protos.wire.errors import ServiceError


def to_messages(system: Any, messages: list[Any], *, refused: bool = True) -> turns.Turns:
    given = Given(
        body={"system": system, "messages": messages}, unknown=UnknownFields(refused=refused)
    )
    return turns.to_messages(given.at("system"), given.at("messages"))


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_results_of_calls_come_before_the_rest_of_their_turn() -> None:
    turn = {
        "role": "user",
        "content": [
            text("Go on."),
            {"type": "tool_result", "tool_use_id": "a", "content": "8"},
            {"type": "tool_result", "tool_use_id": "b", "content": [text("9")], "is_error": True},
            {"type": "tool_result", "tool_use_id": "c"},
        ],
    }
    messages, places = to_messages(None, [turn])
    assert messages == (
        Message(role=Role.TOOL, content="8", tool_call_id="a"),
        Message(
            role=Role.TOOL,
            content=(TextPart(text="Error: "), TextPart(text="9")),
            tool_call_id="b",
        ),
        Message(role=Role.TOOL, content="", tool_call_id="c"),
        Message(role=Role.USER, content=(TextPart(text="Go on."),)),
    )
    assert [place.name for place in places] == [
        "messages[0].content[1]",
        "messages[0].content[2]",
        "messages[0].content[3]",
        "messages[0]",
    ]


def test_an_answer_of_several_blocks_is_one_turn() -> None:
    answer = {
        "role": "assistant",
        "content": [
            {"type": "redacted_thinking", "data": "zzz"},
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            text("Let me "),
            text("look."),
            {"type": "tool_use", "id": "a", "name": "look", "input": {"at": 1}},
        ],
    }
    (message, _), _ = to_messages(None, [answer, {"role": "user", "content": "And?"}])
    assert message == Message(
        role=Role.ASSISTANT,
        content="Let me look.",
        reasoning="Hm.",
        tool_calls=(ToolCall(name="look", arguments={"at": 1}, call_id="a"),),
    )


def test_instructions_are_one_message_without_the_billing_line() -> None:
    system = [text("x-anthropic-billing-header: cch=1;"), text("Be brief."), text("Be kind.")]
    said = [{"role": "system", "content": "In German."}, {"role": "user", "content": "Hello?"}]
    messages, places = to_messages(system, said)
    assert messages[0] == Message(role=Role.SYSTEM, content="Be brief.\n\nBe kind.\n\nIn German.")
    assert [place.name for place in places] == ["system", "messages[1]"]


def test_a_document_of_text_is_text() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Once."}
    nested = {"type": "content", "content": [text("Twice.")]}
    content = [
        {"type": "document", "source": source, "title": "Tale"},
        {"type": "document", "source": nested},
    ]
    (message,), (place,) = to_messages(None, [{"role": "user", "content": content}])
    assert message.content == tuple(TextPart(text=said) for said in ("Tale", "Once.", "Twice."))
    assert place.parts == (
        "messages[0].content[0]",
        "messages[0].content[0]",
        "messages[0].content[1].source.content[0]",
    )


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ("Hello?", "messages[0]"),
        ({"role": "tool", "content": "x"}, "messages[0].role"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": [{**text("x"), "odd": 1}]}, "messages[0].content[0].odd"),
        ({"role": "assistant", "content": [{"type": "image"}]}, "messages[0].content[0]"),
        (
            {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": "x"}]},
            "messages[0].content[0].input",
        ),
    ],
)
def test_a_block_at_fault_is_named(turn: Any, param: str) -> None:
    with pytest.raises(ServiceError) as caught:
        to_messages(None, [turn])
    assert caught.value.param == param
