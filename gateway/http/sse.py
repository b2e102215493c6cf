"""Server-sent events: the wire form of a streamed answer."""

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json

CONTENT_TYPE = "text/event-stream; charset=utf-8"
DONE = b"data: [DONE]\n\n"


def data(value: Mapping[str, Any]) -> bytes:
    """One object as one event."""
    return b"data: " + _json(value) + b"\n\n"


def named(name: str, value: Mapping[str, Any]) -> bytes:
    """One object as one event that has a name."""
    return b"event: " + name.encode() + b"\ndata: " + _json(value) + b"\n\n"


def error(value: Mapping[str, Any]) -> bytes:
    """The event that ends a stream which failed; no [DONE] follows."""
    return named("error", value)


def _json(value: Mapping[str, Any]) -> bytes:
    # JSON escapes line breaks, so an event is always one line of data.
    return to_json(value)
