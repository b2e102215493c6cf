"""Content of the input's items: text, images in data: URLs, and files of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http.door.fields import check_known, entries, text_in, typed, wrong_type
from gateway.media.data_urls import data_url_bytes
from gateway.media.images import image_bytes
from gateway.media.sizing import Detail, ImageSizing
from gateway.request.conversation import ImagePart, Part, Role, TextPart
from protos.wire.errors import InvalidRequest, Reason, Unsupported

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
# What clients echo of parts they got.
_IDLE = frozenset(("annotations", "logprobs", "id", "prompt_cache_breakpoint"))


def content(raw: object, path: str, role: Role) -> str | tuple[Part, ...]:
    """The content of a message or the output of a call: a string, or parts.

    Raises:
        InvalidRequest: a part at fault, named by its path.
        Unsupported: a part that is not served.
    """
    if isinstance(raw, str):
        return raw
    parts = tuple(
        _part(part, f"{path}[{index}]", role) for index, part in enumerate(entries(raw, path))
    )
    if role is Role.ASSISTANT:
        # One string, as it was generated, so that the prompt goes on as it was cached.
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def part_paths(raw: object, path: str) -> tuple[str, ...]:
    """The path of each part."""
    count = len(raw) if isinstance(raw, Sequence) and not isinstance(raw, str) else 0
    return tuple(f"{path}[{index}]" for index in range(count))


def _part(raw: object, path: str, role: Role) -> Part:
    part, kind = typed(raw, path)
    if kind in _TEXTS:
        field = _TEXTS[kind]
        check_known(part, path, {"type", field} | _IDLE)
        return TextPart(text=text_in(part, field, path))
    if role not in (Role.USER, Role.TOOL):
        raise wrong_type(kind, path, "text")
    if kind == "input_image":
        return _image(part, path)
    if kind == "input_file":
        return _file(part, path)
    if kind == "input_video":
        raise Unsupported(
            f"{path} has type {kind}, videos are not supported here",
            reason=Reason.VIDEO_NOT_SUPPORTED,
            param=path,
        )
    raise wrong_type(kind, path, "input_text, input_image or input_file")


def _image(part: Mapping[str, Any], path: str) -> ImagePart:
    check_known(part, path, {"type", "image_url", "detail"} | _IDLE)
    detail = part.get("detail") or Detail.AUTO
    if detail not in tuple(Detail):
        raise InvalidRequest(
            f"{path}.detail must be auto, low, high or original", param=f"{path}.detail"
        )
    data = image_bytes(text_in(part, "image_url", path), field=path)
    return ImagePart(data=data, sizing=ImageSizing(detail=Detail(detail)))


def _file(part: Mapping[str, Any], path: str) -> TextPart:
    """A file of text, behind its name; what else files are is for the client to read."""
    check_known(part, path, {"type", "file_data", "filename", "detail"} | _IDLE)
    data, name = text_in(part, "file_data", path), part.get("filename")
    url = data if data[:5].lower() == "data:" else f"data:;base64,{data}"
    try:
        text = data_url_bytes(url, field=path, most=None).decode()
    except UnicodeDecodeError as error:
        raise Unsupported(
            f"{path} is no text in UTF-8; other files are not supported, images go into"
            " input_image",
            reason=Reason.UNSUPPORTED_MEDIA,
            param=path,
        ) from error
    return TextPart(text=f"{name}:\n{text}" if isinstance(name, str) else text)
