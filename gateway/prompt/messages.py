"""A conversation as the chat template sees it."""

from typing import Any

from gateway.prompt import provenance
from gateway.prompt.provenance import Marks
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCall,
    shown,
)


def template_messages(conversation: Conversation, marks: Marks) -> list[dict[str, Any]]:
    """The turns in the form transformers hands to templates, the client's strings marked."""
    return [_template_message(message, marks) for message in conversation.messages]


def template_tools(conversation: Conversation, marks: Marks) -> list[dict[str, Any]] | None:
    """The tool schemas, the client's strings marked; None where there are none."""
    return [provenance.marked(tool, marks) for tool in conversation.tools] or None


def _template_message(message: Message, marks: Marks) -> dict[str, Any]:
    mark = marks.answer if message.role is Role.ASSISTANT else marks.text
    # Templates iterate over what is not a string, so a turn of tool calls alone has an empty one.
    turn: dict[str, Any] = {"role": message.role.value, "content": ""}
    if isinstance(message.content, str):
        turn["content"] = mark(message.content)
    elif message.content is not None:
        turn["content"] = [
            {"type": "text", "text": mark(part.text)}
            if isinstance(part, TextPart)
            else {"type": "image" if isinstance(part, ImagePart) else "video"}
            for part in shown(message.content)
        ]
    if message.tool_calls:
        turn["tool_calls"] = [_template_call(call, marks) for call in message.tool_calls]
    if message.reasoning is not None:
        turn["reasoning_content"] = turn["thinking"] = mark(message.reasoning)
    if message.name is not None:
        turn["name"] = marks.text(message.name)
    if message.tool_call_id is not None:
        turn["tool_call_id"] = marks.text(message.tool_call_id)
    return turn


def _template_call(call: ToolCall, marks: Marks) -> dict[str, Any]:
    identity = {} if call.call_id is None else {"id": marks.text(call.call_id)}
    function = {
        "name": marks.text(call.name),
        "arguments": provenance.marked(call.arguments, marks),
    }
    return {**identity, "type": "function", "function": function}
