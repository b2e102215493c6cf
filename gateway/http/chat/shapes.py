"""Shapes of fields that the models leave open, for the document.

The modules that read them say by name what is wrong, better than a model would.
"""

from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from protos.wire.sampling import PARAMETERS

_PARTS: list[dict[str, Any]] = [
    {
        "type": "object",
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    },
    {
        "type": "object",
        "required": ["type", "image_url"],
        "properties": {
            "type": {"const": "image_url"},
            "image_url": {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "object",
                        "required": ["url"],
                        "properties": {
                            "url": {"type": "string", "description": "data:image/...;base64,..."},
                            "detail": {"enum": ["auto", "low", "high", "original", None]},
                        },
                    },
                ]
            },
            "min_pixels": {"type": ["integer", "null"]},
            "max_pixels": {"type": ["integer", "null"]},
        },
    },
    {
        "type": "object",
        "required": ["type", "refusal"],
        "properties": {"type": {"const": "refusal"}, "refusal": {"type": "string"}},
    },
]
Content = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"anyOf": _PARTS}},
                {"type": "null"},
            ]
        }
    ),
]
_NAMED = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}},
        },
    },
}
_ALLOWED = {
    "type": "object",
    "required": ["type", "allowed_tools"],
    "properties": {
        "type": {"const": "allowed_tools"},
        "allowed_tools": {
            "type": "object",
            "required": ["mode", "tools"],
            "properties": {
                "mode": {"enum": ["auto", "required"]},
                "tools": {"type": "array", "items": _NAMED, "minItems": 1},
            },
        },
    },
}
ToolChoice = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required", None]}, _NAMED, _ALLOWED]}),
]


def told(name: str) -> Any:
    """A parameter's range for the document; `protos.wire.sampling` holds it, at both doors."""
    parameter = PARAMETERS[name]
    least = "exclusiveMinimum" if parameter.open_low else "minimum"
    return Field(json_schema_extra={least: parameter.low, "maximum": parameter.high})
