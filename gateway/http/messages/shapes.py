"""Shapes of Messages' fields that the models leave open, for the document."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import WithJsonSchema

from gateway.http.door.shapes import (
    FILE_DATA,
    FILE_URL,
    FUNCTION_NAME,
    IMAGE_DATA,
    IMAGE_URL,
    MAYBE_TEXT,
    MAYBE_TRUTH,
    NULL,
    OBJECT,
    PARAMETERS_OF_TOOL,
    TEXT,
    Shape,
    maybe,
    shape,
    some,
    tools,
    turns,
    typed,
)

_IDLE = ("cache_control",)
_TEXT = typed("text", {"text": TEXT}, {}, "citations", *_IDLE)
_SOURCE: Shape = {
    "anyOf": [
        typed("base64", {"data": IMAGE_DATA}, {}, "media_type"),
        typed("url", {"url": IMAGE_URL}, {}),
    ]
}
_IMAGE = typed("image", {"source": _SOURCE}, {}, *_IDLE)
_NO_CITATIONS = maybe({"type": "object", "properties": {"enabled": {"enum": [False, None]}}})


def _document(blocks: list[Shape], files: Sequence[Shape] = ()) -> Shape:
    """A document of a text, of these blocks, or of a file in one of these forms."""
    content: Shape = {"anyOf": [TEXT, some({"anyOf": blocks})]}
    sources = [
        {"required": ["type", name], "properties": {"type": {"const": kind}, name: told}}
        for kind, name, told in (("text", "data", TEXT), ("content", "content", content))
    ]
    return typed(
        "document",
        {"source": {"type": "object", "anyOf": [*sources, *files]}},
        {"title": MAYBE_TEXT, "context": MAYBE_TEXT, "citations": _NO_CITATIONS},
        *_IDLE,
    )


_FILES = [
    typed("base64", {"data": FILE_DATA}, {}, "media_type"),
    typed("url", {"url": FILE_URL}, {}),
]
_SHOWN = [_TEXT, _IMAGE, _document([_TEXT, _IMAGE], _FILES)]
_RESULT = typed(
    "tool_result",
    {"tool_use_id": TEXT},
    {"content": {"anyOf": [TEXT, some({"anyOf": _SHOWN}), NULL]}, "is_error": MAYBE_TRUTH},
    "toolset_name",
    *_IDLE,
)
_ANSWERED = [
    typed("text", {"text": TEXT}, {}, "citations", *_IDLE),
    typed("thinking", {"thinking": TEXT}, {}, "signature", *_IDLE),
    {
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"const": "redacted_thinking"}},
    },
    typed("tool_use", {"id": TEXT, "name": TEXT, "input": OBJECT}, {}, "caller", *_IDLE),
]


def _turn(role: str, blocks: list[Shape]) -> Shape:
    content: Shape = {"anyOf": [TEXT, some({"anyOf": blocks})]}
    return shape({"role": {"const": role}, "content": content}, {})


Turns = Annotated[
    list[Any],
    WithJsonSchema(
        turns(
            {
                "anyOf": [
                    _turn("user", [*_SHOWN, _RESULT]),
                    _turn("assistant", _ANSWERED),
                    _turn("system", [_TEXT, _document([_TEXT])]),
                ]
            }
        )
    ),
]
System = Annotated[str | list[Any] | None, WithJsonSchema({"anyOf": [TEXT, some(_TEXT), NULL]})]
Tools = tools(
    shape(
        {"name": FUNCTION_NAME, "input_schema": {**PARAMETERS_OF_TOOL, "type": "object"}},
        {
            "type": {"enum": ["custom", None]},
            "description": MAYBE_TEXT,
            "strict": MAYBE_TRUTH,
        },
        "cache_control",
        "defer_loading",
        "eager_input_streaming",
        "allowed_callers",
        "input_examples",
    )
)
Form = Annotated[
    dict[str, Any] | None,
    WithJsonSchema(
        maybe(
            {
                "type": "object",
                "required": ["type", "schema"],
                "properties": {
                    "type": {"const": "json_schema"},
                    "schema": {"type": "object", "format": "json-schema"},
                },
            }
        )
    ),
]
CHOICES: Shape = {
    "anyOf": [
        shape(
            {"type": {"enum": ["auto", "any", "none"]}},
            {"name": NULL, "disable_parallel_tool_use": MAYBE_TRUTH},
        ),
        shape(
            {"type": {"const": "tool"}, "name": TEXT}, {"disable_parallel_tool_use": MAYBE_TRUTH}
        ),
    ]
}
