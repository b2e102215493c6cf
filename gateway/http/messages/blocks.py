"""Content blocks as parts, thoughts, calls and results of calls."""

from collections.abc import Mapping
from typing import Any

from gateway.http.door.fields import check_known, entries, text_in, typed, wrong_type
from gateway.media.images import image_bytes
from gateway.request.conversation import ImagePart, Part, TextPart, ToolCall
from protos.wire.errors import InvalidRequest, Reason, Unsupported

_IDLE = frozenset(("type", "cache_control"))
_ERROR = "Error: "  # before the result of a call that failed, which templates cannot say


def parts(raw: object, path: str) -> list[tuple[Part, str]]:
    """Text, images and documents of text, each with its path.

    Raises:
        InvalidRequest: a block at fault, named by its path.
        Unsupported: a block that is not served.
    """
    return [
        found
        for index, block in enumerate(entries(raw, path))
        for found in block_parts(block, f"{path}[{index}]")
    ]


def block_parts(raw: object, path: str) -> list[tuple[Part, str]]:
    """The parts of one block; a document may have several.

    Raises:
        InvalidRequest: the block is at fault.
        Unsupported: its type is not served.
    """
    block, kind = typed(raw, path)
    if kind == "text":
        check_known(block, path, {"text", "citations"} | _IDLE)
        return [(TextPart(text=text_in(block, "text", path)), path)]
    if kind == "image":
        check_known(block, path, {"source"} | _IDLE)
        return [(_image(block.get("source"), f"{path}.source"), path)]
    if kind == "document":
        return _document(block, path)
    raise wrong_type(kind, path, "text, image or a document of text")


def thought(block: Mapping[str, Any], path: str) -> str:
    """What a thinking block of an earlier answer says."""
    check_known(block, path, {"thinking", "signature"} | _IDLE)
    return text_in(block, "thinking", path)


def call(block: Mapping[str, Any], path: str) -> ToolCall:
    """The call in a tool_use block of an earlier answer.

    Raises:
        InvalidRequest: the block is at fault.
    """
    check_known(block, path, {"id", "name", "input", "caller"} | _IDLE)
    given = block.get("input")
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{path}.input must be an object", param=f"{path}.input")
    return ToolCall(
        name=text_in(block, "name", path), arguments=given, call_id=text_in(block, "id", path)
    )


def result(block: Mapping[str, Any], path: str) -> tuple[str, list[tuple[Part, str]] | str]:
    """The id of a call and its result, a string or parts with their paths.

    Raises:
        InvalidRequest: the block is at fault.
        Unsupported: a block within it is not served.
    """
    check_known(block, path, {"tool_use_id", "content", "is_error", "toolset_name"} | _IDLE)
    name, given = text_in(block, "tool_use_id", path), block.get("content")
    has_failed = block.get("is_error") is True
    if given is None or isinstance(given, str):
        return name, _ERROR * has_failed + (given or "")
    found = parts(given, f"{path}.content")
    if has_failed:
        found.insert(0, (TextPart(text=_ERROR), path))
    return name, found


def _image(raw: object, path: str) -> ImagePart:
    source, kind = typed(raw, path)
    if kind == "url":
        check_known(source, path, {"type", "url"})
        return ImagePart(data=image_bytes(text_in(source, "url", path), field=path))
    if kind != "base64":
        raise wrong_type(kind, path, "base64 or url")
    check_known(source, path, {"type", "media_type", "data"})
    # The file itself says what it is.
    return ImagePart(data=image_bytes("data:;base64," + text_in(source, "data", path), field=path))


def _document(block: Mapping[str, Any], path: str) -> list[tuple[Part, str]]:
    known = {"source", "title", "context", "citations"} | _IDLE
    check_known(block, path, known)
    citations = block.get("citations")
    if isinstance(citations, Mapping) and citations.get("enabled"):
        raise Unsupported(f"{path}.citations are not supported", param=f"{path}.citations")
    about = [
        (TextPart(text=text_in(block, name, path)), path)
        for name in ("title", "context")
        if block.get(name) is not None
    ]
    source, kind = typed(block.get("source"), f"{path}.source")
    if kind == "text":
        return [*about, (TextPart(text=text_in(source, "data", f"{path}.source")), path)]
    if kind == "content" and isinstance(source.get("content"), str):
        return [*about, (TextPart(text=source["content"]), path)]
    if kind == "content":
        return [*about, *parts(source.get("content"), f"{path}.source.content")]
    raise Unsupported(
        f"{path}.source has type {kind[:64]!r}, expected text or content: other files than text"
        " are not read here",
        reason=Reason.UNSUPPORTED_MEDIA,
        param=f"{path}.source",
    )
