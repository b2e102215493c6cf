"""A conversation as the chat template sees it, its strings, and the limits on its shape."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.prompt import provenance
from gateway.prompt.provenance import Marks
from gateway.request.conversation import Conversation, ImagePart, Message, Role, TextPart, ToolCall
from protos.wire.errors import InvalidRequest, Reason

# Of one tool schema, or the arguments of one call.
MAX_TOOL_DEPTH = 32
MAX_TOOL_VALUES = 20_000


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
            else {"type": "image"}
            for part in message.content
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


def texts_in(conversation: Conversation) -> list[str]:
    """Every string of the client's that a template may write."""
    texts = list(message_texts(conversation))
    texts.extend(provenance.strings_in(conversation.tools))
    for message in conversation.messages:
        texts.extend(text for text in (message.name, message.tool_call_id) if text is not None)
        texts.extend(call.call_id for call in message.tool_calls if call.call_id is not None)
    return texts


def message_texts(conversation: Conversation) -> Iterator[str]:
    """The client's texts that every template writes, in order."""
    for message in conversation.messages:
        if isinstance(message.content, str):
            yield message.content
        elif message.content is not None:
            yield from (part.text for part in message.content if isinstance(part, TextPart))
        for call in message.tool_calls:
            yield call.name
            yield from provenance.strings_in(call.arguments)
        if message.reasoning is not None:
            yield message.reasoning


def image_sources(conversation: Conversation) -> Iterator[tuple[str, bytes]]:
    """Field and bytes of each image, in the order of the conversation."""
    for turn, message in enumerate(conversation.messages):
        if isinstance(message.content, tuple):
            for index, part in enumerate(message.content):
                if isinstance(part, ImagePart):
                    yield f"messages[{turn}].content[{index}]", part.data


def check_shape(
    conversation: Conversation, *, max_messages: int, max_parts: int, max_tools: int
) -> None:
    """Checks counts and depths, before anything is rendered.

    Raises:
        InvalidRequest: no message, too many messages, parts or tools, data nested too deep, or
            neither text nor an image anywhere.
    """
    _check_count("messages", len(conversation.messages), 1, max_messages)
    _check_count("tools", len(conversation.tools), 0, max_tools)
    part_count = sum(
        len(message.content)
        for message in conversation.messages
        if message.content is not None and not isinstance(message.content, str)
    )
    if part_count > max_parts:
        raise InvalidRequest(
            f"messages have {part_count} content parts, expected at most {max_parts}",
            param="messages",
        )
    for index, tool in enumerate(conversation.tools):
        _check_json(f"tools[{index}]", tool)
    for turn, message in enumerate(conversation.messages):
        for index, call in enumerate(message.tool_calls):
            _check_json(f"messages[{turn}].tool_calls[{index}]", call.arguments)
    has_text = any(not text.isspace() for text in message_texts(conversation) if text)
    if not has_text and not any(image_sources(conversation)):
        raise InvalidRequest("messages hold neither text nor images", param="messages")


def _check_count(field: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        raise InvalidRequest(
            f"{field} has {count} entries, expected {least} to {most}", param=field
        )


def _check_json(field: str, value: Any) -> None:
    level, count = [value], 1
    for _ in range(MAX_TOOL_DEPTH):
        level = [child for item in level for child in _children(item)]
        count += len(level)
        if count > MAX_TOOL_VALUES:
            raise _bad_json(field, f"holds more than {MAX_TOOL_VALUES} values")
        if not level:
            return
    raise _bad_json(field, f"is nested more than {MAX_TOOL_DEPTH} levels deep")


def _bad_json(field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {fault}", reason=Reason.INVALID_SCHEMA, param=field)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
