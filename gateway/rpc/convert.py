"""Between the gRPC door's messages and the gateway's plain data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.answer.events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerPiece,
    AnswerText,
    AnswerThought,
    FinishReason,
    OutputToken,
)
from gateway.brought.features import FeatureShape
from gateway.media.sizing import Detail, ImageSizing
from gateway.media.sources import is_followed
from gateway.media.videos import VideoSizing, video_data
from gateway.prompt.builder import PreparedPrompt
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
from gateway.tiers.convert import FINISH_REASONS, grid_to_proto, spans_to_proto
from protos.tandem.v1 import decoder_pb2, gateway_pb2, tensor_pb2
from protos.wire import tensors
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
_FINISH_REASONS = {
    **{ours: wire for wire, ours in FINISH_REASONS.items()},
    FinishReason.TOOL_CALLS: decoder_pb2.FINISH_REASON_TOOL_CALLS,
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


def event_to_proto(event: AnswerEvent) -> gateway_pb2.ChatChunk:
    """Some of an answer, or its end."""
    return _end_to_proto(event) if isinstance(event, AnswerEnd) else _piece_to_proto(event)


def _piece_to_proto(text: AnswerPiece) -> gateway_pb2.ChatChunk:
    return gateway_pb2.ChatChunk(
        text=text.text if isinstance(text, AnswerText) else "",
        reasoning=text.text if isinstance(text, AnswerThought) else "",
        tool_calls=[_call_to_proto(text)] if isinstance(text, AnswerCall) else [],
        token_ids=[token.token_id for token in text.tokens],
        logprobs=[
            decoder_pb2.TokenLogprobs(
                logprob=token.logprob,
                top=[
                    decoder_pb2.TopLogprob(token_id=top.token_id, logprob=top.logprob)
                    for top in token.top
                ],
            )
            for token in text.tokens
            if token.logprob is not None
        ],
        logits=_logits_to_proto(text.tokens),
    )


def _call_to_proto(call: AnswerCall) -> gateway_pb2.ToolCallPiece:
    return gateway_pb2.ToolCallPiece(
        index=call.index, id=call.call_id or "", name=call.name or "", arguments=call.arguments
    )


def _logits_to_proto(tokens: Sequence[OutputToken]) -> tensor_pb2.Tensor | None:
    rows = [token.logits for token in tokens if token.logits is not None]
    if not rows:
        return None
    return tensor_pb2.Tensor(
        dtype=tensor_pb2.DTYPE_FLOAT32,
        shape=[len(rows), len(rows[0]) // 4],  # float32 has 4 bytes
        data=b"".join(rows),
    )


def _end_to_proto(end: AnswerEnd) -> gateway_pb2.ChatChunk:
    return gateway_pb2.ChatChunk(
        completion=gateway_pb2.ChatCompletion(
            finish_reason=_FINISH_REASONS[end.finish_reason],
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            cached_tokens=end.cached_tokens,
            timings=end.timings,
            reasoning_tokens=end.thought_tokens,
            image_tokens=end.image_tokens,
            video_tokens=end.video_tokens,
        )
    )


def prompt_to_proto(prompt: PreparedPrompt, shape: FeatureShape) -> gateway_pb2.PreparedPrompt:
    """A spliced prompt, and the shape of the features that it may be answered with."""
    return gateway_pb2.PreparedPrompt(
        input_ids=prompt.input_ids.tolist(),
        position_ids=tensors.to_proto(prompt.position_ids),
        position_delta=prompt.position_delta,
        visual_spans=spans_to_proto(prompt.spans),
        grid_thw=[grid_to_proto(grid) for grid in prompt.grids],
        hidden_size=shape.hidden_size,
        level_count=shape.level_count,
    )
