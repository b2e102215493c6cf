"""Shapes of Responses' fields that the models leave open, for the document."""

from typing import Annotated, Any

from pydantic import WithJsonSchema

from gateway.http.door.shapes import (
    DETAIL,
    FILE_DATA,
    FILE_URL,
    FUNCTION_NAME,
    IMAGE_URL,
    MAYBE_TEXT,
    MAYBE_TRUTH,
    NULL,
    PARAMETERS_OF_TOOL,
    TEXT,
    Shape,
    maybe,
    shape,
    some,
    tool_choice,
    tools,
    typed,
)

_IDLE_OF_PART = ("annotations", "logprobs", "id", "prompt_cache_breakpoint")
_IDLE = ("id", "status", "phase", "created_by")
_SAID = [
    *(
        typed(kind, {"text": TEXT}, {}, *_IDLE_OF_PART)
        for kind in ("input_text", "output_text", "text")
    ),
    typed("refusal", {"refusal": TEXT}, {}, *_IDLE_OF_PART),
]
_OF_FILE = {"filename": MAYBE_TEXT, "detail": DETAIL}
_SEEN = [
    typed("input_image", {"image_url": IMAGE_URL}, {"detail": DETAIL}, *_IDLE_OF_PART),
    typed("input_file", {"file_data": FILE_DATA}, {**_OF_FILE, "file_url": NULL}, *_IDLE_OF_PART),
    typed("input_file", {"file_url": FILE_URL}, {**_OF_FILE, "file_data": NULL}, *_IDLE_OF_PART),
]
_TOLD: Shape = {"anyOf": [TEXT, some({"anyOf": _SAID})]}
_SHOWN: Shape = {"anyOf": [TEXT, some({"anyOf": [*_SAID, *_SEEN]})]}
_THOUGHTS = maybe(
    some({"type": "object", "required": ["text"], "properties": {"text": TEXT}}),
)


def _message(roles: list[str], content: Shape) -> Shape:
    known = {"role": {"enum": roles}, "content": content}
    return shape(known, {"type": {"enum": ["message", None]}}, *_IDLE)


_ITEM: Shape = {
    "anyOf": [
        _message(["user"], _SHOWN),
        _message(["system", "developer", "assistant"], _TOLD),
        typed(
            "reasoning",
            {},
            {"summary": _THOUGHTS, "content": _THOUGHTS},
            "encrypted_content",
            *_IDLE,
        ),
        typed(
            "function_call",
            {"call_id": TEXT, "name": TEXT, "arguments": TEXT},
            {},
            "namespace",
            *_IDLE,
        ),
        typed("function_call_output", {"call_id": TEXT, "output": _SHOWN}, {}, *_IDLE),
        {
            "type": "object",
            "required": ["type", "id"],
            "properties": {"type": {"const": "item_reference"}, "id": TEXT},
        },
    ]
}
Input = Annotated[
    str | list[Any] | None, WithJsonSchema({"anyOf": [TEXT, some(_ITEM, least=1), NULL]})
]
_NAMED: Shape = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {"type": {"const": "function"}, "name": TEXT},
}
_ALLOWED: Shape = {
    "type": "object",
    "required": ["type", "mode", "tools"],
    "properties": {
        "type": {"const": "allowed_tools"},
        "mode": {"enum": ["auto", "required"]},
        "tools": some(_NAMED, least=1),
    },
}
ToolChoice = tool_choice(_NAMED, _ALLOWED)
Tools = tools(
    {
        "type": "object",
        "required": ["type", "name"],
        "properties": {
            "type": {"const": "function"},
            "name": FUNCTION_NAME,
            "description": MAYBE_TEXT,
            "parameters": PARAMETERS_OF_TOOL,
            "strict": MAYBE_TRUTH,
        },
    }
)
_NO_SCHEMA = {"name": MAYBE_TEXT, "description": MAYBE_TEXT, "strict": MAYBE_TRUTH}
FORMATS: Shape = {
    "anyOf": [
        shape({"type": {"enum": ["text", "json_object"]}}, _NO_SCHEMA, "schema"),
        shape(
            {
                "type": {"const": "json_schema"},
                "schema": {"type": "object", "format": "json-schema"},
            },
            _NO_SCHEMA,
        ),
    ]
}
