"""From the HTTP door's request to a question: what OpenAI's fields mean, and what is refused."""

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from gateway.http.chat import videos
from gateway.http.chat.schemas import ChatCompletionRequest, ChatMessage, ResponseFormat
from gateway.media.sizing import Detail, ImageSizing
from gateway.request.constraint import (
    ConstraintSpec,
    from_response_format,
    from_structured_outputs,
    with_whitespace,
)
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from gateway.request.job import Question, Reporting, Stopping
from gateway.request.sampling import sampling_params
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Reason, Unsupported
from protos.wire.sampling import PARAMETERS

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
# Known elsewhere and without effect on an answer: marks for prompt caches, what clients echo of
# parts they got, and the file's type, which the file says itself.
_IDLE_OF_PART = frozenset(
    ("cache_control", "prompt_cache_breakpoint", "id", "index", "annotations")
)
_IDLE_OF_URL = frozenset(("format",))


def to_question(request: ChatCompletionRequest) -> Question:
    """What a client asks; images and videos are taken out of their URLs, not looked at.

    Raises:
        InvalidRequest: a field at fault, named by its path, or options that contradict each other.
        Unsupported: a field or part that is not served.
    """
    _check_supported(request)
    return Question(
        model=request.model,
        conversation=_conversation(request),
        sampling=_sampling(request),
        stopping=_stopping(request),
        reporting=Reporting(
            logprobs=bool(request.logprobs), top_logprob_count=request.top_logprobs or 0
        ),
        constraint=_constraint(request),
        priority=request.priority or 0,
        cache_salt=request.cache_salt or "",
        choice_count=1 if request.n is None else request.n,
        stream=bool(request.stream),
    )


def _conversation(request: ChatCompletionRequest) -> Conversation:
    tools = () if request.tool_choice == "none" else tuple(request.tools or ())
    for index, tool in enumerate(tools):
        _check_tool(tool, f"tools[{index}]")
    return Conversation(
        messages=tuple(
            _message(message, f"messages[{index}]")
            for index, message in enumerate(request.messages)
        ),
        tools=tools,
        add_vision_id=bool(request.add_vision_id),
    )


def _sampling(request: ChatCompletionRequest) -> decoder_pb2.SamplingParams:
    values = {name: getattr(request, name) for name in PARAMETERS}
    return sampling_params(values, request.logit_bias or {})


def _stopping(request: ChatCompletionRequest) -> Stopping:
    # OpenAI's newer name wins.
    field = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    return Stopping(
        max_tokens=getattr(request, field),
        max_tokens_field=field,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        stop_strings=tuple(request.stop or ()),
        ignore_eos=bool(request.ignore_eos),
    )


def _constraint(request: ChatCompletionRequest) -> ConstraintSpec | None:
    wanted, extra = request.response_format, request.structured_outputs
    found = None if wanted is None else _response_format(wanted)
    if extra is None:
        return found
    given = extra.model_dump(by_alias=True, exclude_none=True)
    pattern = given.pop("whitespace_pattern", None)
    is_disabled = given.pop("disable_any_whitespace", False)
    if found is not None and given:
        raise InvalidRequest(
            "response_format and structured_outputs both say what the answer looks like,"
            " expected one of them",
            param="structured_outputs",
        )
    return with_whitespace(
        found or from_structured_outputs(given),
        pattern=pattern,
        is_disabled=is_disabled,
        field="structured_outputs",
    )


def _response_format(wanted: ResponseFormat) -> ConstraintSpec | None:
    inner = wanted.json_schema
    json_schema = None if inner is None else inner.model_dump(by_alias=True, exclude_unset=True)
    return from_response_format(wanted.type, json_schema, wanted.schema_)


def _check_supported(request: ChatCompletionRequest) -> None:
    """Refuses what would need another answer than this server can give."""
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    if request.tool_choice not in (None, "none", "auto"):
        raise Unsupported(
            "tool_choice must be none or auto; forcing a call is not supported yet",
            param="tool_choice",
        )
    if request.modalities not in (None, ["text"]):
        raise Unsupported("modalities must be text alone", param="modalities")
    if request.min_tokens:
        raise Unsupported("min_tokens must be 0, others are not supported yet", param="min_tokens")
    if request.skip_special_tokens is False:
        raise Unsupported(
            "skip_special_tokens must be true: special tokens are never part of an answer's text",
            param="skip_special_tokens",
        )


def _check_tool(tool: Mapping[str, Any], path: str) -> None:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, Mapping):
        raise InvalidRequest(
            f'{path} must be {{"type": "function", "function": {{...}}}}', param=path
        )
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise InvalidRequest(
            f"{path}.function.name must be 1 to 64 letters, digits, dots, dashes or underscores",
            param=f"{path}.function.name",
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
            ToolCall(name=call.function.name, arguments=call.function.arguments, call_id=call.id)
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
    if kind not in (*texts, "image_url"):
        raise InvalidRequest(
            f"{path} has type {kind[:64]!r}, expected text, image_url or video_url",
            reason=Reason.UNSUPPORTED_MEDIA,
            param=path,
        )
    if kind == "image_url":
        return _image(raw, path)
    _check_fields(raw, path, {"type", kind} | _IDLE_OF_PART)
    text = raw.get(kind)
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.{kind} must be a string", param=f"{path}.{kind}")
    return TextPart(text=text)


def _image(raw: Mapping[str, Any], path: str) -> ImagePart:
    """An image part; its areas are named and placed as Qwen's own clients do."""
    _check_fields(raw, path, {"type", "image_url", "min_pixels", "max_pixels"} | _IDLE_OF_PART)
    url, detail = _url(raw.get("image_url"), path)
    sizing = ImageSizing(
        detail=detail,
        min_pixels=_area(raw, "min_pixels", path),
        max_pixels=_area(raw, "max_pixels", path),
    )
    sizing.check(field=path)
    return ImagePart.at(url, sizing=sizing, field=path)


def _area(raw: Mapping[str, Any], name: str, path: str) -> int | None:
    value = raw.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidRequest(f"{path}.{name} must be an integer", param=f"{path}.{name}")
    return value


def _url(image_url: object, path: str) -> tuple[str, Detail]:
    """URL and detail of an image part: OpenAI's object, or the bare string some clients send."""
    url, detail = image_url, None
    if isinstance(image_url, Mapping):
        _check_fields(image_url, f"{path}.image_url", {"url", "detail"} | _IDLE_OF_URL)
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
