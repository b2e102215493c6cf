"""Content blocks as parts, thoughts, calls and results of calls."""

from collections.abc import Mapping

from gateway.http.door.typed import Field
from gateway.media.images import image_bytes
from gateway.media.pdfs import file_bytes
from gateway.media.sizing import ImageSizing
from gateway.request.conversation import ImagePart, Part, TextPart, ToolCall
from gateway.request.files import file_at, file_part
from protos.wire.errors import Unsupported

_IDLE = frozenset(("type", "cache_control"))
_ERROR = "Error: "  # before the result of a call that failed, which templates cannot say

Placed = tuple[Part, str]  # a part and its path


def parts(blocks: Field) -> list[Placed]:
    """Text, images and documents, each with its path.

    Raises:
        InvalidRequest: a block at fault, named by its path.
        Unsupported: a block that is not served.
    """
    return [found for block in blocks.entries() for found in block_parts(block)]


def block_parts(block: Field) -> list[Placed]:
    """The parts of one block; a document may have several.

    Raises:
        InvalidRequest: the block is at fault.
        Unsupported: its type is not served.
    """
    kind = block.kind()
    if kind == "text":
        return [(TextPart(text=_text(block)), block.path)]
    if kind == "image":
        block.only({"source"} | _IDLE)
        return [(_image(block.at("source")), block.path)]
    if kind == "document":
        return _document(block)
    raise block.wrong_type("text, image or document")


def instruction(block: Field) -> str:
    """The text of a block of instructions, which are nothing else.

    Raises:
        InvalidRequest: the block is at fault.
        Unsupported: it is no text.
    """
    if block.kind() != "text":
        raise block.wrong_type("text")
    return _text(block)


def thought(block: Field) -> str:
    """What a thinking block of an earlier answer says."""
    block.only({"thinking", "signature"} | _IDLE)
    return block.text("thinking")


def call(block: Field) -> ToolCall:
    """The call in a tool_use block of an earlier answer.

    Raises:
        InvalidRequest: the block is at fault.
    """
    block.only({"id", "name", "input", "caller"} | _IDLE)
    return ToolCall(
        name=block.text("name"), arguments=block.at("input").object, call_id=block.text("id")
    )


def result(block: Field) -> tuple[str, list[Placed] | str]:
    """The id of a call and its result, a string or parts with their paths.

    Raises:
        InvalidRequest: the block is at fault.
        Unsupported: a block within it is not served.
    """
    block.only({"tool_use_id", "content", "is_error", "toolset_name"} | _IDLE)
    name, given = block.text("tool_use_id"), block.at("content")
    has_failed = block.at("is_error").value is True
    if given.value is None or isinstance(given.value, str):
        return name, _ERROR * has_failed + (given.value or "")
    found = parts(given)
    if has_failed:
        found.insert(0, (TextPart(text=_ERROR), block.path))
    return name, found


def _text(block: Field) -> str:
    block.only({"text", "citations"} | _IDLE)
    return block.text("text")


def _image(source: Field) -> ImagePart:
    kind = source.kind()
    if kind == "url":
        source.only({"type", "url"})
        return ImagePart.at(source.text("url"), sizing=ImageSizing(), field=source.path)
    if kind != "base64":
        raise source.wrong_type("base64 or url")
    source.only({"type", "media_type", "data"})
    # The file itself says what it is.
    return ImagePart(data=image_bytes("data:;base64," + source.text("data"), field=source.path))


def _document(block: Field) -> list[Placed]:
    block.only({"source", "title", "context", "citations"} | _IDLE)
    citations = block.at("citations").value
    if isinstance(citations, Mapping) and citations.get("enabled"):
        field = f"{block.path}.citations"
        raise Unsupported(f"{field} are not supported", param=field)
    about: list[Placed] = [
        (TextPart(text=block.text(name)), block.path)
        for name in ("title", "context")
        if block.at(name).value is not None
    ]
    return [*about, *_document_source(block.at("source"), block.path)]


def _document_source(source: Field, path: str) -> list[Placed]:
    kind, content = source.kind(), source.at("content")
    if kind == "text":
        return [(TextPart(text=source.text("data")), path)]
    if kind == "content" and isinstance(content.value, str):
        return [(TextPart(text=content.value), path)]
    if kind == "content":
        return parts(content)
    size = ImageSizing()
    if kind == "base64":
        source.only({"type", "media_type", "data"})
        data = file_bytes(source.text("data"), field=source.path)
        return [(file_part(data, name=None, sizing=size, field=source.path), source.path)]
    if kind == "url":
        source.only({"type", "url"})
        url = source.text("url")
        return [(file_at(url, name=None, sizing=size, field=source.path), source.path)]
    raise source.wrong_type("base64, url, text or content")
