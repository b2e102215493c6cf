"""Streams and bodies beside the document: every event's schema, and how a stream ends."""

import json
from functools import cache
from typing import Any

import jsonschema

LINES = "application/x-ndjson"


def events(text: str, kind: str) -> list[Any]:
    """The JSON of every event or line; the end [DONE] is none."""
    lines = text.split("\n") if kind == LINES else _data(text)
    return [json.loads(line) for line in lines if line not in ("", "[DONE]")]


def _data(text: str) -> list[str]:
    found = [line.partition(": ") for line in text.split("\n") if line]
    unknown = {name for name, _, _ in found} - {"data", "event"}
    assert not unknown, f"fields of events that nobody told of: {unknown}"
    return [value for name, _, value in found if name == "data"]


def faults(document: dict[str, Any], path: str, kind: str, text: str) -> list[str]:
    """What of a stream is not as the document says; empty where all is.

    Args:
        document: The OpenAPI document.
        path: Of the operation, a POST.
        kind: The media type.
        text: All of the stream.
    """
    validator = _validator(json.dumps(document, sort_keys=True), path, kind)
    found = [error.message[:300] for one in events(text, kind) for error in _errors(validator, one)]
    if not _is_whole(path, kind, text):
        found.append(f"the stream ends with {text[-200:]!r}")
    return found


def allows(document: dict[str, Any], path: str, body: Any) -> bool:
    """Whether the document allows a body of a POST."""
    validator = _validator(json.dumps(document, sort_keys=True), path, None)
    return not _errors(validator, body)


def without_nulls(value: Any) -> Any:
    """A body without the fields that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _errors(validator: Any, value: Any) -> list[Any]:
    return list(validator.iter_errors(value))


@cache
def _validator(document: str, path: str, kind: str | None) -> Any:
    """Of a stream's event, or of a body where `kind` is None."""
    whole = json.loads(document)
    operation = whole["paths"][path]["post"]
    content = operation["requestBody" if kind is None else "responses"]
    content = content["content"] if kind is None else content["200"]["content"]
    told = content[kind or "application/json"]["schema"]
    return jsonschema.Draft202012Validator({**told, "components": whole["components"]})


def _is_whole(path: str, kind: str, text: str) -> bool:
    """Whether the stream ends as its API has it: with its end, or with an error."""
    last = events(text, kind)[-1]
    if kind == LINES:
        return bool(last.get("done")) or "error" in last
    if path.startswith("/v1/messages"):
        return last["type"] in ("message_stop", "error")
    return text.endswith("data: [DONE]\n\n") or "event: error\n" in text
