"""Content of the input's items: text, images, PDFs and files of text."""

from gateway.http.door.typed import Field
from gateway.media.pdfs import file_bytes
from gateway.media.sizing import Detail, ImageSizing
from gateway.request.conversation import FilePart, ImagePart, Part, Role, TextPart
from gateway.request.files import file_at, file_part
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
    return ImagePart.at(part.text("image_url"), sizing=_sizing(part), field=part.path)


def _sizing(part: Field) -> ImageSizing:
    given = part.at("detail").value
    detail = Detail.AUTO if given is None else given
    if detail not in tuple(Detail):
        raise InvalidRequest(
            f"{part.path}.detail must be auto, low, high or original", param=f"{part.path}.detail"
        )
    return ImageSizing(detail=Detail(str(detail)))


def _file(part: Field) -> TextPart | FilePart:
    """A file of text or a PDF, sent or named by its URL."""
    part.only({"file_data", "file_url", "filename", "detail"} | _IDLE)
    name, url = part.at("filename").value, part.at("file_url").value
    name, sizing = name if isinstance(name, str) else None, _sizing(part)
    if url is None:
        data = file_bytes(part.text("file_data"), field=part.path)
        return file_part(data, name=name, sizing=sizing, field=part.path)
    if part.at("file_data").value is not None:
        raise InvalidRequest(
            f"{part.path} has file_data and file_url, expected one of them", param=part.path
        )
    return file_at(part.text("file_url"), name=name, sizing=sizing, field=part.path)
