"""What the input's items become."""

from typing import Any

import pytest

from gateway.http.door.typed import Given
from gateway.http.fields import UnknownFields
from gateway.http.responses.items import ItemReader
from gateway.request.conversation import Message, Role, TextPart, ToolCall
from protos.wire.errors import ServiceError


def read(items: Any) -> ItemReader:
    reader = ItemReader({"msg_1": said("Kept.")}.get)
    reader.read(Given(body={"input": items}, unknown=UnknownFields(refused=True)).at("input"))
    return reader


def said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": content,
    }


def thought(text: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "reasoning_text", "text": text}]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content, **more}


def call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"call_{name}", "name": name, "arguments": "{}"}


def called(name: str) -> ToolCall:
    return ToolCall(name=name, arguments="{}", call_id=f"call_{name}")


def answer(content: str | None = None, **fields: Any) -> Message:
    return Message(role=Role.ASSISTANT, content=content, **fields)


def test_items_of_one_turn_are_one_message() -> None:
    items = [
        thought("Hm."),
        said("Let me look."),
        call("a"),
        call("b"),
        {"type": "function_call_output", "call_id": "call_a", "output": "8"},
        said("Eight."),
    ]
    reader = read(items)
    assert reader.messages == [
        answer("Let me look.", reasoning="Hm.", tool_calls=(called("a"), called("b"))),
        Message(role=Role.TOOL, content="8", tool_call_id="call_a"),
        answer("Eight."),
    ]
    assert [place.name for place in reader.places] == ["input[0]", "input[4]", "input[5]"]


def test_what_cannot_follow_begins_another_turn() -> None:
    reader = read([said("One."), said("Two."), call("a"), thought("Hm."), call("b")])
    assert reader.messages == [
        answer("One."),
        answer("Two.", tool_calls=(called("a"),)),
        answer(reasoning="Hm.", tool_calls=(called("b"),)),
    ]


def test_thoughts_are_read_from_content_or_summary_and_encrypted_ones_left_out() -> None:
    summary = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Brief."}]}
    sealed: dict[str, Any] = {
        "type": "reasoning",
        "summary": [],
        "content": None,
        "encrypted_content": "gAAA",
    }
    assert read([summary, said("A.")]).messages == [answer("A.", reasoning="Brief.")]
    assert read([sealed, said("A.")]).messages == [answer("A.")]


def test_messages_keep_their_parts_and_roles() -> None:
    parts = [{"type": "input_text", "text": "Be"}, {"type": "input_text", "text": "kind."}]
    reader = read([{"role": "developer", "content": parts}, {"role": "user", "content": "Hi"}])
    assert reader.messages == [
        Message(role=Role.SYSTEM, content=(TextPart(text="Be"), TextPart(text="kind."))),
        Message(role=Role.USER, content="Hi"),
    ]
    assert reader.places[0].parts == ("input[0].content[0]", "input[0].content[1]")
    assert read("Hi").messages == [Message(role=Role.USER, content="Hi")]


def test_a_reference_stands_for_a_kept_item() -> None:
    assert read([{"type": "item_reference", "id": "msg_1"}]).messages == [answer("Kept.")]


def test_a_file_of_text_is_text_behind_its_name() -> None:
    for data in ("data:text/plain;base64,T25jZS4=", "T25jZS4="):
        part = {"type": "input_file", "filename": "tale.txt", "file_data": data}
        (message,) = read([{"role": "user", "content": [part]}]).messages
        assert message.content == (TextPart(text="tale.txt:\nOnce."),)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("Hi", "input[0]"),
        ({"type": "mcp_call"}, "input[0]"),
        ({"type": "message", "role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": None}, "input[0].content"),
        ({"role": "user", "content": "x", "odd": 1}, "input[0].odd"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"role": "system", "content": [{"type": "input_image"}]}, "input[0].content[0]"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]},
            "input[0].content[0].file_id",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "ftp://x/y.png"}]},
            "input[0].content[0]",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:,", "detail": "odd"}],
            },
            "input[0].content[0].detail",
        ),
        ({"role": "user", "content": [{"type": "input_video"}]}, "input[0].content[0]"),
        ({"type": "function_call", "name": "f", "arguments": {}}, "input[0].arguments"),
        ({"type": "function_call_output", "call_id": "x"}, "input[0].output"),
    ],
)
def test_an_item_at_fault_is_named(item: Any, param: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read([item])
    assert caught.value.param == param
