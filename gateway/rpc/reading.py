"""From the gRPC door's messages to the gateway's plain data."""

import json
from collections.abc import Mapping
from typing import Any

from gateway.media.sizing import Detail, ImageSizing
from gateway.media.sources import is_followed
from gateway.media.videos import VideoSizing, video_data
from gateway.request.constraint import ConstraintKind, ConstraintSpec, invalid, with_whitespace
from gateway.request.conversation import (
    Conversation,
    Effort,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
    VideoPart,
)
from gateway.request.job import Question, Reporting, Stopping
from gateway.request.tools import ToolChoice, ToolMode
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import InvalidRequest, Unsupported

_ROLES = {
    gateway_pb2.ROLE_SYSTEM: Role.SYSTEM,
    gateway_pb2.ROLE_USER: Role.USER,
    gateway_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    gateway_pb2.ROLE_TOOL: Role.TOOL,
}
_DETAILS = {
    gateway_pb2.IMAGE_DETAIL_UNSPECIFIED: Detail.AUTO,
    gateway_pb2.IMAGE_DETAIL_AUTO: Detail.AUTO,
    gateway_pb2.IMAGE_DETAIL_LOW: Detail.LOW,
    gateway_pb2.IMAGE_DETAIL_HIGH: Detail.HIGH,
}

Asking = gateway_pb2.ChatRequest | gateway_pb2.ContinueStart


def question_from_proto(request: Asking) -> Question:
    """What a client asks; of a prepared prompt, how it is to be answered.

    Raises:
        InvalidRequest: a message, tool or constraint at fault, named by its path.
    """
    if isinstance(request, gateway_pb2.ContinueStart):
        conversation = Conversation(messages=(), tools=_tools(request))
    else:
        conversation = conversation_from_proto(request)
    return Question(
        model=request.model,
        conversation=conversation,
        sampling=request.sampling_params,
        stopping=_stopping(request),
        reporting=Reporting(
            logprobs=request.report_options.logprobs,
            top_logprob_count=request.report_options.top_logprob_count,
            logits=request.report_options.logits,
        ),
        constraint=_constraint(request),
        tool_choice=_tool_choice(request.tool_choice),
        priority=request.priority if request.HasField("priority") else None,
        cache_salt=request.cache_salt,
        stream=True,
    )


def conversation_from_proto(
    request: gateway_pb2.ChatRequest | gateway_pb2.PrepareRequest,
) -> Conversation:
    """The conversation of a request.

    Raises:
        InvalidRequest: a message, tool or template option at fault, named by its path.
    """
    return Conversation(
        messages=tuple(_message(message, at) for at, message in enumerate(request.messages)),
        tools=_tools(request),
        add_vision_id=request.add_vision_id,
        template_options=_template_options(request.template_options_json),
        reasoning_effort=_effort(request.reasoning_effort),
    )


def _tools(request: Asking | gateway_pb2.PrepareRequest) -> tuple[dict[str, Any], ...]:
    tools = (_object(text, f"tools_json[{at}]") for at, text in enumerate(request.tools_json))
    given = tuple(tools)
    if isinstance(request, gateway_pb2.PrepareRequest):
        return given
    return () if request.tool_choice.mode == gateway_pb2.TOOL_MODE_NONE else given


def _template_options(text: str) -> Mapping[str, str | float | bool]:
    field = "template_options_json"
    options = _object(text, field) if text else {}
    for name, value in options.items():
        if not isinstance(value, str | int | float | bool):
            raise InvalidRequest(
                f"{field} has {name[:64]!r}, expected a text, a number or a boolean", param=field
            )
    return options


def _effort(text: str) -> Effort | None:
    if text and text not in tuple(Effort):
        raise InvalidRequest(
            f"reasoning_effort must be one of {', '.join(Effort)}", param="reasoning_effort"
        )
    return Effort(text) if text else None


def _tool_choice(message: gateway_pb2.ToolChoice) -> ToolChoice:
    if message.mode not in gateway_pb2.ToolMode.values():
        raise InvalidRequest(
            f"tool_choice.mode is {message.mode}, expected auto, none or required",
            param="tool_choice",
        )
    is_required = message.mode == gateway_pb2.TOOL_MODE_REQUIRED
    return ToolChoice(
        mode=ToolMode.REQUIRED if is_required else ToolMode.AUTO,
        names=tuple(message.names) if message.mode != gateway_pb2.TOOL_MODE_NONE else (),
        parallel=not message.single_call,
    )


def _message(message: gateway_pb2.ChatMessage, at: int) -> Message:
    field = f"messages[{at}]"
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"{field}.role is {message.role}, expected system, user, assistant or tool",
            param=f"{field}.role",
        )
    content = tuple(
        _part(part, f"{field}.content[{index}]") for index, part in enumerate(message.content)
    )
    calls = tuple(
        _tool_call(text, f"{field}.tool_calls_json[{index}]")
        for index, text in enumerate(message.tool_calls_json)
    )
    return Message(
        role=_ROLES[message.role],
        content=_plain(content),
        tool_calls=calls,
        reasoning=message.reasoning or None,
    )


def _plain(content: tuple[Part, ...]) -> str | tuple[Part, ...] | None:
    """One text is a plain string, as a client of the HTTP door would send it."""
    if not content:
        return None
    if len(content) == 1 and isinstance(content[0], TextPart):
        return content[0].text
    return content


def _part(part: gateway_pb2.ContentPart, field: str) -> Part:
    kind = part.WhichOneof("part")
    if kind is None:
        raise InvalidRequest(
            f"{field} is empty, expected text, image, image_url or video", param=field
        )
    if kind == "text":
        return TextPart(text=part.text)
    if kind == "video":
        return _video(part.video, f"{field}.video")
    if part.detail not in _DETAILS:
        raise InvalidRequest(
            f"{field}.detail is {part.detail}, expected auto, low or high", param=f"{field}.detail"
        )
    sizing = ImageSizing(
        detail=_DETAILS[part.detail],
        min_pixels=part.min_pixels if part.HasField("min_pixels") else None,
        max_pixels=part.max_pixels if part.HasField("max_pixels") else None,
    )
    sizing.check(field=field)
    if kind == "image_url":
        return ImagePart.at(part.image_url, sizing=sizing, field=field)
    return ImagePart(data=part.image, sizing=sizing)


def _video(video: gateway_pb2.Video, field: str) -> VideoPart:
    if [bool(video.file), bool(video.frames), bool(video.url)].count(True) != 1:
        raise InvalidRequest(f"{field} must have one of file, frames and url", param=field)
    is_remote = is_followed(video.url)
    file, frames = video.file, tuple(frame.image for frame in video.frames)
    if video.url and not is_remote:
        file, frames = video_data(video.url, field=field)
    timed = [frame.seconds for frame in video.frames if frame.HasField("seconds")]
    if len(timed) not in (0, len(video.frames)):
        raise InvalidRequest(
            f"{field}.frames have seconds in {len(timed)} of {len(video.frames)} entries, expected"
            " all or none",
            param=f"{field}.frames",
        )
    sizing = VideoSizing(
        **{
            name: getattr(video, name)
            for name in VideoSizing.__dataclass_fields__
            if video.HasField(name)
        }
    )
    sizing.check(field=field)
    return VideoPart(
        file=file,
        url=video.url if is_remote else None,
        frames=frames,
        seconds=tuple(timed),
        sizing=sizing,
    )


def _tool_call(text: str, field: str) -> ToolCall:
    call = _object(text, field)
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{field} lacks function.name", param=field)
    arguments = function.get("arguments") or "{}"
    if not isinstance(arguments, str | dict):
        raise InvalidRequest(f"{field} has arguments that are no object", param=field)
    identity = call.get("id")
    return ToolCall(
        name=name,
        arguments=arguments,
        call_id=identity if isinstance(identity, str) else None,
    )


def _object(text: str, field: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} is not valid JSON", param=field) from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"{field} is not a JSON object", param=field)
    return value


def _stopping(request: Asking) -> Stopping:
    conditions = request.stop_conditions
    return Stopping(
        max_tokens=conditions.max_tokens if conditions.HasField("max_tokens") else None,
        stop_token_ids=tuple(conditions.stop_token_ids),
        stop_strings=tuple(request.stop_strings),
        ignore_eos=conditions.ignore_eos,
        min_tokens=conditions.min_tokens,
    )


def _constraint(request: Asking) -> ConstraintSpec | None:
    if not request.HasField("constraint"):
        return None
    message = request.constraint
    if message.WhichOneof("whitespace") == "disable_any_whitespace":
        field = "constraint.disable_any_whitespace"
        if not message.disable_any_whitespace:
            raise invalid(field, "must be true where it is given")
    has_pattern = message.HasField("whitespace_pattern")
    return with_whitespace(
        _constraint_kind(message),
        pattern=message.whitespace_pattern if has_pattern else None,
        is_disabled=message.disable_any_whitespace,
        field="constraint",
    )


def _constraint_kind(message: decoder_pb2.Constraint) -> ConstraintSpec:
    name = message.WhichOneof("kind")
    if message.token_ids:
        field = "constraint.token_ids"
        raise Unsupported(f"{field} is not supported: added tokens are the server's", param=field)
    if name is None:
        raise InvalidRequest("constraint has no kind, expected one", param="constraint")
    kind, field = ConstraintKind(name), f"constraint.{name}"
    if kind is ConstraintKind.CHOICE:
        return ConstraintSpec(kind=kind, texts=tuple(message.choice.texts), field=field)
    if kind is not ConstraintKind.JSON_OBJECT:
        return ConstraintSpec(kind=kind, text=getattr(message, name), field=field)
    if not message.json_object:
        raise invalid(field, "must be true where it is given")
    return ConstraintSpec(kind=kind, field=field)
