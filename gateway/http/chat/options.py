"""What requests say of an answer besides the conversation: its length, form, tools and thought."""

import json
from collections.abc import Mapping, Sequence

from gateway.http.chat.schemas import (
    SETTLED,
    AnswerRequest,
    ChatCompletionRequest,
    ResponseFormat,
)
from gateway.request.constraint import (
    ConstraintSpec,
    from_response_format,
    from_structured_outputs,
    with_whitespace,
)
from gateway.request.conversation import Effort
from gateway.request.job import Stopping
from gateway.request.sampling import sampling_params
from gateway.request.tools import ToolChoice, ToolMode
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Unsupported
from protos.wire.sampling import PARAMETERS


def sampling_of(request: AnswerRequest) -> decoder_pb2.SamplingParams:
    """How tokens are chosen.

    Raises:
        InvalidRequest: out of range.
    """
    values = {name: getattr(request, name) for name in PARAMETERS}
    return sampling_params(values, request.logit_bias or {})


def chat_stopping_of(request: ChatCompletionRequest) -> Stopping:
    """When an answer in a conversation ends."""
    limit = request.max_completion_tokens  # OpenAI's newer name wins
    if limit is None:
        return stopping_of(request, request.max_tokens)
    return stopping_of(request, limit, field="max_completion_tokens")


def stopping_of(
    request: AnswerRequest, max_tokens: int | None, *, field: str = "max_tokens"
) -> Stopping:
    """When an answer ends; `field` is where the client gave `max_tokens`."""
    return Stopping(
        max_tokens=max_tokens,
        max_tokens_field=field,
        stop_token_ids=tuple(request.stop_token_ids or ()),
        stop_strings=tuple(request.stop or ()),
        ignore_eos=bool(request.ignore_eos),
        min_tokens=request.min_tokens or 0,
    )


def tool_choice_of(request: ChatCompletionRequest) -> ToolChoice:
    """OpenAI's field: a word, a function's name, or a mode and the tools it concerns.

    Raises:
        InvalidRequest: it is none of them.
    """
    given = request.tool_choice
    parallel = request.parallel_tool_calls is not False
    if given in (None, "none", "auto"):
        return ToolChoice(parallel=parallel)
    if given == "required":
        return ToolChoice(mode=ToolMode.REQUIRED, parallel=parallel)
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "function":
        return ToolChoice(
            mode=ToolMode.REQUIRED, names=(_function_name(given, "tool_choice"),), parallel=parallel
        )
    if kind == "allowed_tools":
        return _allowed_tools(given.get("allowed_tools"), parallel)
    raise InvalidRequest(
        "tool_choice must be none, auto, required,"
        ' {"type": "function", "function": {"name": ...}} or {"type": "allowed_tools", ...}',
        param="tool_choice",
    )


def _allowed_tools(given: object, parallel: bool) -> ToolChoice:
    field = "tool_choice.allowed_tools"
    tools = given.get("tools") if isinstance(given, Mapping) else None
    mode = given.get("mode") if isinstance(given, Mapping) else None
    if mode not in tuple(ToolMode) or not isinstance(tools, Sequence) or not tools:
        raise InvalidRequest(
            f"{field} must have a mode, auto or required, and tools", param="tool_choice"
        )
    names = (_function_name(tool, f"{field}.tools[{at}]") for at, tool in enumerate(tools))
    return ToolChoice(mode=ToolMode(mode), names=tuple(names), parallel=parallel)


def _function_name(given: object, path: str) -> str:
    function = given.get("function") if isinstance(given, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{path}.function.name must be a string", param="tool_choice")
    return name


def constraint_of(request: AnswerRequest) -> ConstraintSpec | None:
    """What the answer must look like.

    Raises:
        InvalidRequest: two forms, or a malformed one.
    """
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


def check_supported(request: AnswerRequest) -> None:
    """Refuses what would need another answer than this server can give.

    Raises:
        InvalidRequest: options of a stream without one.
        Unsupported: the field and the one value it may have.
    """
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    for name, (settled, reason) in SETTLED.items():
        if getattr(request, name, None) not in (None, settled):
            raise Unsupported(f"{name} must be {json.dumps(settled)}: {reason}", param=name)


def effort_of(request: ChatCompletionRequest) -> Effort | None:
    """How much to think: OpenAI's field, or the switch that Qwen's clients know, at two places.

    Raises:
        InvalidRequest: the switch is neither true nor false.
    """
    given = (request.chat_template_kwargs or {}).get("enable_thinking")
    switch = request.enable_thinking if given is None else given
    if request.reasoning_effort is not None or switch is None:
        return request.reasoning_effort
    if not isinstance(switch, bool):
        field = "chat_template_kwargs.enable_thinking"
        raise InvalidRequest(f"{field} must be true or false", param=field)
    return Effort.MEDIUM if switch else Effort.NONE
