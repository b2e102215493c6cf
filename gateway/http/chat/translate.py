"""From the HTTP door's request to a question: what OpenAI's fields mean, and what is refused."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from gateway.http.chat import videos
from gateway.http.chat.options import (
    chat_stopping_of,
    check_supported,
    constraint_of,
    effort_of,
    sampling_of,
    tool_choice_of,
)
from gateway.http.chat.schemas import ChatCompletionRequest, ChatMessage
from gateway.http.fields import UnknownFields
from gateway.media.pdfs import file_bytes
from gateway.media.sizing import Detail, ImageSizing
from gateway.request.conversation import (
    Conversation,
    FilePart,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from gateway.request.files import file_part
from gateway.request.job import Question, Reporting
from protos.wire.errors import InvalidRequest, Reason, Unsupported

# Known elsewhere and without effect on an answer: marks for prompt caches, what clients echo of
# parts they got, and the file's type, which the file says itself.
_IDLE_OF_PART = frozenset(
    ("cache_control", "prompt_cache_breakpoint", "id", "index", "annotations")
)
_IDLE_OF_URL = frozenset(("format",))
_OF_URL = frozenset(("url", "detail")) | _IDLE_OF_URL
_OF_PART: Mapping[str, frozenset[str]] = {
    "text": _IDLE_OF_PART | {"type", "text"},
    "refusal": _IDLE_OF_PART | {"type", "refusal"},
    "image_url": _IDLE_OF_PART | {"type", "image_url", "min_pixels", "max_pixels"},
    "file": _IDLE_OF_PART | {"type", "file"},
}
_OF_FILE = frozenset(("file_data", "filename"))


def to_question(request: ChatCompletionRequest) -> Question:
    """What a client asks; images and videos are taken out of their URLs, not looked at.

    Raises:
        InvalidRequest: a field at fault, named by its path, or options that contradict each other.
        Unsupported: a field or part that is not served.
    """
    check_supported(request)
    if request.modalities not in (None, ["text"]):
        raise Unsupported("modalities must be text alone", param="modalities")
    return Question(
        model=request.model,
        conversation=conversation_of(request),
        sampling=sampling_of(request),
        stopping=chat_stopping_of(request),
        reporting=Reporting(
            logprobs=bool(request.logprobs), top_logprob_count=request.top_logprobs or 0
        ),
        constraint=constraint_of(request),
        tool_choice=tool_choice_of(request),
        priority=request.priority,
        cache_salt=request.cache_salt or "",
        choice_count=1 if request.n is None else request.n,
        stream=bool(request.stream),
    )


def conversation_of(request: ChatCompletionRequest) -> Conversation:
    """The conversation of a request.

    Raises:
        InvalidRequest: a message or part at fault, named by its path.
        Unsupported: a part that is not served.
    """
    return Conversation(
        messages=tuple(
            _message(message, f"messages[{index}]")
            for index, message in enumerate(request.messages)
        ),
        tools=() if request.tool_choice == "none" else tuple(request.tools or ()),
        add_vision_id=bool(request.add_vision_id),
        template_options={
            name: value
            for name, value in (request.chat_template_kwargs or {}).items()
            if value is not None and name != "enable_thinking"
        },
        reasoning_effort=effort_of(request),
    )


def _message(message: ChatMessage, path: str) -> Message:
    role = Role.SYSTEM if message.role == "developer" else Role(message.role)
    if message.content is None and role is not Role.ASSISTANT:
        raise InvalidRequest(f"{path}.content is missing", param=f"{path}.content")
    content = message.content
    if content is None and role is Role.ASSISTANT:
        content = message.refusal
    return Message(
        role=role,
        content=_content(content, f"{path}.content", role),
        tool_calls=tuple(
            ToolCall(
                name=call.function.name,
                arguments=call.function.arguments or "{}",
                call_id=call.id,
            )
            for call in message.tool_calls or ()
        ),
        reasoning=_reasoning(message, path),
        name=message.name,
        tool_call_id=message.tool_call_id,
    )


def _reasoning(message: ChatMessage, path: str) -> str | None:
    one, other = message.reasoning, message.reasoning_content
    if one is not None and other is not None and one != other:
        raise InvalidRequest(
            f"{path}.reasoning and {path}.reasoning_content are the same field and differ",
            param=f"{path}.reasoning",
        )
    return other if one is None else one


def _content(content: object, path: str, role: Role) -> str | tuple[Part, ...] | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise InvalidRequest(f"{path} must be a string or a list of parts", param=path)
    return tuple(_part(part, f"{path}[{index}]", role) for index, part in enumerate(content))


def _part(raw: object, path: str, role: Role) -> Part:
    kind = raw.get("type") if isinstance(raw, Mapping) else None
    if not isinstance(raw, Mapping) or not isinstance(kind, str):
        raise InvalidRequest(f"{path} must be an object with a type", param=path)
    texts = ("text", "refusal") if role is Role.ASSISTANT else ("text",)
    if kind in videos.TYPES:
        return videos.video_part(raw, path, idle=_IDLE_OF_PART)
    if kind not in (*texts, "image_url", "file"):
        raise InvalidRequest(
            f"{path} has type {kind[:64]!r}, expected text, image_url, video_url or file",
            reason=Reason.UNSUPPORTED_MEDIA,
            param=path,
        )
    if kind == "image_url":
        return _image(raw, path)
    if kind == "file":
        return _file(raw, path)
    _check_fields(raw, path, _OF_PART[kind])
    text = raw.get(kind)
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.{kind} must be a string", param=f"{path}.{kind}")
    return TextPart(text=text)


def _image(raw: Mapping[str, Any], path: str) -> ImagePart:
    """An image part; its areas are named and placed as Qwen's own clients do."""
    _check_fields(raw, path, _OF_PART["image_url"])
    url, detail = _url(raw.get("image_url"), path)
    sizing = ImageSizing(
        detail=detail,
        min_pixels=_area(raw, "min_pixels", path),
        max_pixels=_area(raw, "max_pixels", path),
    )
    sizing.check(field=path)
    return ImagePart.at(url, sizing=sizing, field=path)


def _file(raw: Mapping[str, Any], path: str) -> TextPart | FilePart:
    """A file part: a PDF or a text, in OpenAI's object."""
    _check_fields(raw, path, _OF_PART["file"])
    given = raw.get("file")
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{path}.file must be an object", param=f"{path}.file")
    _check_fields(given, f"{path}.file", _OF_FILE)
    data, name = given.get("file_data"), given.get("filename")
    if not isinstance(data, str):
        field = f"{path}.file.file_data"
        raise InvalidRequest(f"{field} must be a file in base64", param=field)
    name = name if isinstance(name, str) else None
    return file_part(file_bytes(data, field=path), name=name, sizing=ImageSizing(), field=path)


def _area(raw: Mapping[str, Any], name: str, path: str) -> int | None:
    value = raw.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidRequest(f"{path}.{name} must be an integer", param=f"{path}.{name}")
    return value


def _url(image_url: object, path: str) -> tuple[str, Detail]:
    """URL and detail of an image part: OpenAI's object, or the bare string some clients send."""
    url, detail = image_url, None
    if isinstance(image_url, Mapping):
        _check_fields(image_url, f"{path}.image_url", _OF_URL)
        url, detail = image_url.get("url"), image_url.get("detail")
    if not isinstance(url, str):
        raise InvalidRequest(
            f'{path}.image_url must be {{"url": "data:image/...;base64,..."}}', param=path
        )
    if detail is None:
        return url, Detail.AUTO
    if detail not in tuple(Detail):
        raise InvalidRequest(
            f"{path}.image_url.detail must be auto, low, high or original",
            param=f"{path}.image_url.detail",
        )
    return url, Detail(detail)


def _check_fields(given: Mapping[str, Any], path: str, known: Set[str]) -> None:
    """Refuses fields that nobody would hold; null says nothing."""
    for name, value in given.items():
        if name not in known and value is not None:
            field = f"{path}.{name[:64]}"
            raise InvalidRequest(f"{field} is not known here", param=field)


def leave_out_of_parts(request: ChatCompletionRequest, unknown: UnknownFields) -> None:
    """Leaves out of messages' parts what nobody knows, where that is no error."""
    for at, message in enumerate(request.messages):
        if isinstance(message.content, list):
            path = f"messages[{at}].content"
            message.content = [
                _known(part, f"{path}[{index}]", unknown)
                for index, part in enumerate(message.content)
            ]


def _known(part: object, path: str, unknown: UnknownFields) -> object:
    known = _OF_PART.get(str(part.get("type"))) if isinstance(part, Mapping) else None
    if known is None or not isinstance(part, Mapping):
        return part
    kept = unknown.without_unknown(part, known, path)
    for name, inner in (("image_url", _OF_URL), ("file", _OF_FILE)):
        if isinstance(kept.get(name), Mapping):
            kept[name] = unknown.without_unknown(kept[name], inner, f"{path}.{name}")
    return kept
