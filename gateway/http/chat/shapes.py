"""Shapes of chat completions' fields that the models leave open, for the document."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.shapes import (
    COUNT,
    DETAIL,
    FILE_DATA,
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
from protos.media.limits import MAX_VIDEO_RATE

_IDLE = ("cache_control", "prompt_cache_breakpoint", "id", "index", "annotations")
_URL = shape({"url": IMAGE_URL}, {"detail": DETAIL}, "format")
_AREAS = {"min_pixels": maybe(COUNT), "max_pixels": maybe(COUNT)}
_RATE: Shape = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MAX_VIDEO_RATE}
_FRAMES: Shape = {"type": ["integer", "null"], "minimum": 2, "maximum": COUNT["maximum"]}
_OF_VIDEO: Mapping[str, Shape] = {
    "fps": _RATE,
    "sample_fps": _RATE,
    "min_frames": maybe(COUNT),
    "max_frames": _FRAMES,
    "nframes": _FRAMES,
    "num_frames": _FRAMES,
    "total_pixels": maybe(COUNT),
    **_AREAS,
}
_VIDEO_URL: Shape = {
    "type": "string",
    "format": "video-url",
    "description": "data:video/mp4;base64,..., or frames as in data:video/jpeg;base64,A,B",
}
_SHOWN: Mapping[str, Shape] = {
    **_OF_VIDEO,
    "timestamps": maybe(some({"type": "number", "minimum": 0})),
}
_FRAME: Shape = {
    "anyOf": [
        IMAGE_URL,
        {"type": "object", "required": ["url"], "properties": {"url": IMAGE_URL}},
    ]
}


def _of_url(kind: str) -> Shape:
    """A video by its URL, bare or within an object."""
    inner = shape({"url": _VIDEO_URL}, _OF_VIDEO, "format", "detail")
    return typed(kind, {kind: {"anyOf": [_VIDEO_URL, inner]}}, _SHOWN, *_IDLE)


_TEXT_PART = typed("text", {"text": TEXT}, {}, *_IDLE)
_REFUSAL = typed("refusal", {"refusal": TEXT}, {}, *_IDLE)
_SEEN = [
    typed("image_url", {"image_url": {"anyOf": [IMAGE_URL, _URL]}}, _AREAS, *_IDLE),
    _of_url("video_url"),
    _of_url("video"),
    typed("video", {"video": some(_FRAME, least=2)}, _SHOWN, *_IDLE),
    typed("file", {"file": shape({"file_data": FILE_DATA}, {"filename": MAYBE_TEXT})}, {}, *_IDLE),
]
_BY_ROLE: Mapping[str, Shape] = {
    "instructed": {"anyOf": [TEXT, some(_TEXT_PART)]},
    "asked": {"anyOf": [TEXT, some({"anyOf": [_TEXT_PART, *_SEEN]})]},
    "told": {"anyOf": [TEXT, some({"anyOf": [_TEXT_PART, _REFUSAL]}), NULL]},
}


def instead(form: Shape) -> Any:
    """Tells this form of a model, and none of its fields by themselves."""

    def told(schema: Shape) -> None:
        kept = {name: schema[name] for name in ("title", "description") if name in schema}
        schema.clear()
        schema.update(**kept, **form)

    return told


def by_role(schema: Shape) -> None:
    """Tells messages apart by their role: who may show images, and who may say nothing."""
    kinds = (
        ("instructed", ["system", "developer"], ["role", "content"]),
        ("asked", ["user", "tool"], ["role", "content"]),
        ("told", ["assistant"], ["role"]),
    )
    one = {key: schema[key] for key in ("type", "additionalProperties", "properties")}
    forms = []
    for kind, roles, required in kinds:
        own = {"role": {"enum": roles}, "content": _BY_ROLE[kind]}
        forms.append({**one, "required": required, "properties": {**one["properties"], **own}})
    instead({"anyOf": forms})(schema)


_NAMED: Shape = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name"], "properties": {"name": TEXT}},
    },
}
_ALLOWED: Shape = {
    "type": "object",
    "required": ["type", "allowed_tools"],
    "properties": {
        "type": {"const": "allowed_tools"},
        "allowed_tools": {
            "type": "object",
            "required": ["mode", "tools"],
            "properties": {
                "mode": {"enum": ["auto", "required"]},
                "tools": some(_NAMED, least=1),
            },
        },
    },
}
ToolChoice = tool_choice(_NAMED, _ALLOWED)
Tools = tools(
    {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": {"const": "function"},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": FUNCTION_NAME,
                    "description": MAYBE_TEXT,
                    "parameters": PARAMETERS_OF_TOOL,
                    "strict": MAYBE_TRUTH,
                },
            },
        },
    }
)

_ABOUT_SCHEMA = {"name": MAYBE_TEXT, "description": MAYBE_TEXT, "strict": MAYBE_TRUTH}
JSON_SCHEMA: Shape = {"type": "object", "format": "json-schema"}
FORMATS: Shape = {
    "anyOf": [
        shape({"type": {"const": "text"}}, {"json_schema": NULL, "schema": NULL}),
        shape(
            {"type": {"const": "json_object"}}, {"json_schema": NULL, "schema": maybe(JSON_SCHEMA)}
        ),
        shape(
            {
                "type": {"const": "json_schema"},
                "json_schema": shape({"schema": JSON_SCHEMA}, _ABOUT_SCHEMA),
            },
            {"schema": NULL},
        ),
    ]
}
_KINDS: Mapping[str, Shape] = {
    "json": {"anyOf": [JSON_SCHEMA, {"type": "string", "format": "json-schema-text"}]},
    "json_object": {"const": True},
    "regex": {"type": "string", "format": "regex"},
    "choice": some(TEXT, least=1),
    "grammar": {"type": "string", "format": "lark"},
}


def _structured(kind: str | None) -> Shape:
    """vLLM's field with one of its forms, or with white space alone, for `response_format`."""
    others = {name: NULL for name in _KINDS if name != kind}
    blank: Mapping[str, Shape] = {
        "whitespace_pattern": {"type": ["string", "null"], "format": "regex"},
        "disable_any_whitespace": MAYBE_TRUTH,
    }
    if kind not in (None, "json", "json_object"):
        blank = {"whitespace_pattern": NULL, "disable_any_whitespace": {"enum": [False, None]}}
    return shape({} if kind is None else {kind: _KINDS[kind]}, {**others, **blank})


STRUCTURED: Shape = {"anyOf": [_structured(kind) for kind in (*_KINDS, None)]}
OPTIONS: Shape = {
    "type": ["object", "null"],
    "description": "Variables that the model's chat template reads.",
    "properties": {"enable_thinking": MAYBE_TRUTH},
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}
_ID: Shape = {"type": "integer", "minimum": 0}
_PROMPT: Shape = {"type": "string", "minLength": 1}


def prompts(most: int) -> Shape:
    """One text or several, each as it is or as token ids."""
    ids = some(_ID, least=1)
    return {"anyOf": [_PROMPT, ids, some({"anyOf": [_PROMPT, ids]}, least=1, most=most)]}


PROMPT: Shape = {**_PROMPT, "type": ["string", "null"]}
IDS = some(_ID)
