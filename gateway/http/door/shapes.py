"""Shapes of fields as the document tells them, where types say less than the readers hold.

The readers stay: they say by name what is wrong, better than a model would. A format that is none
of JSON Schema's own (`image-url`) names what a string holds.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.prompt.inputs import PromptLimits
from gateway.request.job import MAX_STOP_STRING_CHARS, MAX_STOP_STRINGS
from protos.wire.sampling import (
    MAX_LOGIT_BIAS,
    MAX_LOGIT_BIASES,
    MAX_PRIORITY,
    MAX_STOP_TOKENS,
    MAX_TOKENS,
    MAX_TOP_LOGPROBS,
    PARAMETERS,
)

Shape = dict[str, Any]

TEXT: Shape = {"type": "string"}
MAYBE_TEXT: Shape = {"type": ["string", "null"]}
NULL: Shape = {"type": "null"}
MAYBE_TRUTH: Shape = {"type": ["boolean", "null"]}
OBJECT: Shape = {"type": "object"}
COUNT: Shape = {"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}
IMAGE_URL: Shape = {
    "type": "string",
    "format": "image-url",
    "description": "data:image/...;base64,..., or https where the server fetches images",
}
IMAGE_DATA: Shape = {"type": "string", "format": "image-base64", "contentEncoding": "base64"}
FILE_DATA: Shape = {
    "type": "string",
    "format": "file",
    "contentEncoding": "base64",
    "description": "A PDF, or text in UTF-8; also as data:application/pdf;base64,... Of a PDF the"
    " model is given, page after page: a line with the page's number, the page as an image, and"
    " the text of its text layer where it has one.",
}
FILE_URL: Shape = {
    "type": "string",
    "format": "file-url",
    "description": "data:application/pdf;base64,..., or https where the server fetches files; a PDF"
    " or text in UTF-8",
}
DETAIL: Shape = {"enum": ["auto", "low", "high", "original", None]}
FUNCTION_NAME: Shape = {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,64}$"}
# Of a tool's arguments; `{}` and null are a function without any.
PARAMETERS_OF_TOOL: Shape = {
    "type": ["object", "null"],
    "properties": {"type": {"const": "object"}},
    "format": "json-schema",
}
_STOP: Shape = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_STRING_CHARS}


def shape(required: Mapping[str, Shape], optional: Mapping[str, Shape], *idle: str) -> Shape:
    """An object with these fields and no other; `idle` ones may hold anything."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional, **dict.fromkeys(idle, {})},
        "additionalProperties": False,
    }


def typed(
    kind: str, required: Mapping[str, Shape], optional: Mapping[str, Shape], *idle: str
) -> Shape:
    """An object of a type."""
    return shape({"type": {"const": kind}, **required}, optional, *idle)


def maybe(one: Shape) -> Shape:
    """The shape, or null."""
    return {"anyOf": [one, NULL]}


def some(items: Shape, *, least: int = 0, most: int | None = None) -> Shape:
    """A list."""
    found: Shape = {"type": "array", "items": items}
    if least:
        found["minItems"] = least
    if most is not None:
        found["maxItems"] = most
    return found


def within(low: float, high: float) -> Any:
    """A number's range for the document; who reads it holds it."""
    return Field(json_schema_extra={"minimum": low, "maximum": high})


def told(name: str) -> Any:
    """A parameter's range for the document; `protos.wire.sampling` holds it, at both doors."""
    parameter = PARAMETERS[name]
    least = "exclusiveMinimum" if parameter.open_low else "minimum"
    return Field(json_schema_extra={least: parameter.low, "maximum": parameter.high})


def exactly(value: bool | int | str) -> Any:
    """A field that may have one value: to Python, 0 and false are equal, and 1 and true."""

    def check(given: Any) -> Any:
        if given is None or (type(given) is type(value) and given == value):
            return given
        raise ValueError(f"expected {value!r}" if isinstance(value, str) else f"expected {value}")

    return BeforeValidator(check)


def tools(one: Shape) -> Any:
    """A list of tools, each of this shape."""
    most = PromptLimits().max_tools
    return Annotated[list[dict[str, Any]] | None, WithJsonSchema(maybe(some(one, most=most)))]


def tool_choice(named: Shape, allowed: Shape) -> Any:
    """Whether tools are called, and which: a word, one tool, or some of them."""
    words: Shape = {"enum": ["none", "auto", "required", None]}
    return Annotated[Any, WithJsonSchema({"anyOf": [words, named, allowed]})]


def turns(one: Shape) -> Shape:
    """A list of messages, each of this shape."""
    return some(one, least=1, most=PromptLimits().max_messages)


def only(values: Sequence[str]) -> Any:
    """Texts out of these, in a list."""
    return WithJsonSchema(maybe(some({"enum": list(values)})))


def _one_or_many(value: Any) -> Any:
    """A list, also of what was one string."""
    return [value] if isinstance(value, str) else value


def _bias_keys(value: Any) -> Any:
    """JSON keys are text; token ids are written in decimal."""
    if not isinstance(value, dict):
        return value
    return {int(key) if _is_integer(key) else key: bias for key, bias in value.items()}


def _is_integer(key: Any) -> bool:
    return isinstance(key, str) and len(key) <= 10 and key.isascii() and key.isdecimal()


Stop = Annotated[
    list[str] | None,
    BeforeValidator(_one_or_many),
    WithJsonSchema({"anyOf": [_STOP, some(_STOP, most=MAX_STOP_STRINGS), NULL]}),
]
LogitBias = Annotated[
    dict[int, float] | None,
    BeforeValidator(_bias_keys),
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "propertyNames": {"pattern": "^[0-9]{1,10}$"},
            "additionalProperties": {
                "type": "number",
                "minimum": -MAX_LOGIT_BIAS,
                "maximum": MAX_LOGIT_BIAS,
            },
            "maxProperties": MAX_LOGIT_BIASES,
        }
    ),
]
StopTokens = Annotated[
    list[int] | None,
    WithJsonSchema(maybe(some({"type": "integer", "minimum": 0}, most=MAX_STOP_TOKENS))),
]
Priority = Annotated[int | None, within(-MAX_PRIORITY, MAX_PRIORITY)]
TopLogprobs = Annotated[int | None, within(0, MAX_TOP_LOGPROBS)]
StopSequences = Annotated[
    list[str] | None, WithJsonSchema(maybe(some(_STOP, most=MAX_STOP_STRINGS)))
]
