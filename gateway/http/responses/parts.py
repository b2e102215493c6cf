"""Content of the input's items: text, images in data: URLs, and files of text."""

from gateway.http.door.typed import Field
from gateway.media.data_urls import data_url_bytes
from gateway.media.sizing import Detail, ImageSizing
from gateway.request.conversation import ImagePart, Part, Role, TextPart
from protos.wire.errors import InvalidRequest, Reason, Unsupported

_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
# What clients echo of parts they got.
_IDLE = frozenset(("type", "annotations", "logprobs", "id", "prompt_cache_breakpoint"))


def content(field: Field, role: Role) -> str | tuple[Part, ...]:
    """The content of a message or the output of a call: a string, or parts.

    Raises:
        InvalidRequest: a part at fault, named by its path.
        Unsupported: a part that is not served.
    """
    if isinstance(field.value, str):
        return field.value
    parts = tuple(_part(part, role) for part in field.entries())
    if role is Role.ASSISTANT:
        # One string, as it was generated, so that the prompt goes on as it was cached.
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def part_paths(field: Field) -> tuple[str, ...]:
    """The path of each part."""
    return tuple(part.path for part in field.entries()) if isinstance(field.value, list) else ()


def _part(part: Field, role: Role) -> Part:
    kind = part.kind()
    if kind in _TEXTS:
        name = _TEXTS[kind]
        part.only({name} | _IDLE)
        return TextPart(text=part.text(name))
    if role not in (Role.USER, Role.TOOL):
        raise part.wrong_type("text")
    if kind == "input_image":
        return _image(part)
    if kind == "input_file":
        return _file(part)
    if kind == "input_video":
        raise Unsupported(
            f"{part.path} has type {kind}, videos are not supported here",
            reason=Reason.VIDEO_NOT_SUPPORTED,
            param=part.path,
        )
    raise part.wrong_type("input_text, input_image or input_file")


def _image(part: Field) -> ImagePart:
    part.only({"image_url", "detail"} | _IDLE)
    given = part.at("detail").value
    detail = Detail.AUTO if given is None else given
    if detail not in tuple(Detail):
        raise InvalidRequest(
            f"{part.path}.detail must be auto, low, high or original", param=f"{part.path}.detail"
        )
    sizing = ImageSizing(detail=Detail(str(detail)))
    return ImagePart.at(part.text("image_url"), sizing=sizing, field=part.path)


def _file(part: Field) -> TextPart:
    """A file of text, behind its name; what else files are is for the client to read."""
    part.only({"file_data", "filename", "detail"} | _IDLE)
    data, name = part.text("file_data"), part.at("filename").value
    url = data if data[:5].lower() == "data:" else f"data:;base64,{data}"
    file = data_url_bytes(url, field=part.path, most=None)
    if file.startswith(b"%PDF-"):  # which may be all ASCII, but is no text to read
        raise _no_text(part, "is a PDF, which is not supported: its pages go into input_image")
    try:
        text = file.decode()
    except UnicodeDecodeError as error:
        raise _no_text(
            part, "is no text in UTF-8; other files are not supported, images go into input_image"
        ) from error
    return TextPart(text=f"{name}:\n{text}" if isinstance(name, str) else text)


def _no_text(part: Field, why: str) -> Unsupported:
    return Unsupported(
        f"{part.path} {why}",
        reason=Reason.UNSUPPORTED_MEDIA,
        param=part.path,
    )
