"""The gRPC door: ChatService on the same pipeline as HTTP, with token ids and logits."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

import grpc

from gateway.access.admission import Admission
from gateway.access.auth import AUTHORIZATION, check_key
from gateway.access.served import ServedModel
from gateway.access.tenants import Tenants
from gateway.answer.events import AnswerEnd, AnswerText, FinishReason, OutputToken
from gateway.pipeline import Pipeline
from gateway.prompt.builder import PreparedPrompt
from gateway.record import recording
from gateway.request.constraint import Constraint, ConstraintKind, invalid, with_whitespace
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from gateway.request.deadlines import Patience
from gateway.request.ids import request_id
from gateway.request.job import ChatJob, Reporting, Sampling, Stopping
from gateway.tiers.convert import grid_to_proto, spans_to_proto
from protos.tandem.v1 import decoder_pb2, gateway_pb2, gateway_pb2_grpc, tensor_pb2
from protos.wire import tensors
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import InvalidRequest, reporting_errors

Context = grpc.aio.ServicerContext[Any, Any]

_ROLES = {
    gateway_pb2.ROLE_SYSTEM: Role.SYSTEM,
    gateway_pb2.ROLE_USER: Role.USER,
    gateway_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    gateway_pb2.ROLE_TOOL: Role.TOOL,
}
_FINISH_REASONS = {
    FinishReason.STOP: decoder_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: decoder_pb2.FINISH_REASON_LENGTH,
}


class ChatServicer(gateway_pb2_grpc.ChatServiceServicer):
    """Converts messages; the pipeline does the work."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        served: ServedModel,
        admission: Admission,
        patience: Patience,
        tenants: Tenants,
        api_keys: Sequence[str],
    ) -> None:
        self._pipeline = pipeline
        self._served = served
        self._admission = admission
        self._patience = patience
        self._tenants = tenants
        self._api_keys = api_keys

    async def Complete(
        self, request: gateway_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[gateway_pb2.ChatChunk]:
        """Answers one conversation; see the contract in gateway.proto."""
        arrived_s = time.monotonic()
        metadata = _metadata(context)
        name = request_id(request.request_id or metadata.get(REQUEST_ID_KEY))
        async with reporting_errors(context):
            with ExitStack() as held:
                record = held.enter_context(recording("grpc", name))
                api_key = check_key(self._api_keys, metadata.get(AUTHORIZATION))
                held.enter_context(self._admission.slot(request.ByteSize()))
                self._served.check(request.model)
                salt = self._tenants.salt(api_key, request.cache_salt)
                job = self._job(name, request, salt, arrived_s, context.time_remaining())
                async with aclosing(self._pipeline.answer(job)) as events:
                    async for _, event in events:
                        if isinstance(event, AnswerEnd):
                            record.ended(event)
                            yield _end_to_proto(event)
                        else:
                            yield _text_to_proto(event)

    async def Prepare(
        self, request: gateway_pb2.PrepareRequest, context: Context
    ) -> gateway_pb2.PreparedPrompt:
        """Prepares one conversation; see the contract in gateway.proto."""
        async with reporting_errors(context):
            check_key(self._api_keys, _metadata(context).get(AUTHORIZATION))
            with self._admission.slot(request.ByteSize()):
                self._served.check(request.model)
                conversation = _conversation(
                    request.messages, request.tools_json, request.add_vision_id
                )
                return _prompt_to_proto(await self._pipeline.prepare(conversation))
        raise AssertionError("unreachable: reporting_errors swallows nothing")

    def _job(
        self,
        name: str,
        request: gateway_pb2.ChatRequest,
        cache_salt: bytes,
        arrived_s: float,
        client_left_s: float | None,
    ) -> ChatJob:
        sampling = _sampling(request.sampling_params)
        return ChatJob(
            request_id=name,
            conversation=_conversation(request.messages, request.tools_json, request.add_vision_id),
            sampling=sampling.with_defaults(self._served.generation),
            stopping=_stopping(request),
            reporting=Reporting(
                logprobs=request.report_options.logprobs,
                top_logprob_count=request.report_options.top_logprob_count,
                logits=request.report_options.logits,
            ),
            constraint=_constraint(request),
            cache_salt=cache_salt,
            arrived_s=arrived_s,
            deadline=self._patience.deadline(arrived_s, stream=True, client_left_s=client_left_s),
        )


def _metadata(context: Context) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {key: value for key, value in pairs if isinstance(value, str)}


def _conversation(
    messages: Sequence[gateway_pb2.ChatMessage], tools_json: Sequence[str], add_vision_id: bool
) -> Conversation:
    return Conversation(
        messages=tuple(_message(message, at) for at, message in enumerate(messages)),
        tools=tuple(_object(text, f"tools_json[{at}]") for at, text in enumerate(tools_json)),
        add_vision_id=add_vision_id,
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
    return Message(role=_ROLES[message.role], content=_plain(content), tool_calls=calls)


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
        raise InvalidRequest(f"{field} is empty, expected text or image", param=field)
    return TextPart(text=part.text) if kind == "text" else ImagePart(data=part.image)


def _tool_call(text: str, field: str) -> ToolCall:
    call = _object(text, field)
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{field} lacks function.name", param=field)
    arguments = function.get("arguments", "")
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


def _sampling(params: decoder_pb2.SamplingParams) -> Sampling:
    given = {
        name: getattr(params, name)
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "seed"),
            *("repetition_penalty", "presence_penalty", "frequency_penalty"),
        )
        if params.HasField(name)
    }
    return Sampling(**given, logit_bias={entry.token_id: entry.bias for entry in params.logit_bias})


def _stopping(request: gateway_pb2.ChatRequest) -> Stopping:
    conditions = request.stop_conditions
    return Stopping(
        max_tokens=conditions.max_tokens if conditions.HasField("max_tokens") else None,
        stop_token_ids=tuple(conditions.stop_token_ids),
        stop_strings=tuple(request.stop_strings),
        ignore_eos=conditions.ignore_eos,
    )


def _constraint(request: gateway_pb2.ChatRequest) -> Constraint | None:
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


def _constraint_kind(message: decoder_pb2.Constraint) -> Constraint:
    name = message.WhichOneof("kind")
    if name is None:
        raise InvalidRequest("constraint has no kind, expected one", param="constraint")
    kind, field = ConstraintKind(name), f"constraint.{name}"
    if kind is ConstraintKind.CHOICE:
        return Constraint(kind=kind, texts=tuple(message.choice.texts), field=field)
    if kind is not ConstraintKind.JSON_OBJECT:
        return Constraint(kind=kind, text=getattr(message, name), field=field)
    if not message.json_object:
        raise invalid(field, "must be true where it is given")
    return Constraint(kind=kind, field=field)


def _text_to_proto(text: AnswerText) -> gateway_pb2.ChatChunk:
    return gateway_pb2.ChatChunk(
        text=text.text,
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
    timings = end.timings
    return gateway_pb2.ChatChunk(
        completion=gateway_pb2.ChatCompletion(
            finish_reason=_FINISH_REASONS[end.finish_reason],
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            cached_tokens=end.cached_tokens,
            timings=gateway_pb2.ChatTimings(
                prepare_ms=timings.prepare_ms,
                preprocess_ms=timings.preprocess_ms,
                encode_ms=timings.encode_ms,
                transfer_ms=timings.transfer_ms,
                prefill_ms=timings.prefill_ms,
                first_token_ms=timings.first_token_ms,
                decode_ms=timings.decode_ms,
            ),
        )
    )


def _prompt_to_proto(prompt: PreparedPrompt) -> gateway_pb2.PreparedPrompt:
    return gateway_pb2.PreparedPrompt(
        input_ids=prompt.input_ids.tolist(),
        position_ids=tensors.to_proto(prompt.position_ids),
        position_delta=prompt.position_delta,
        visual_spans=spans_to_proto(prompt.spans),
        grid_thw=[grid_to_proto(grid) for grid in prompt.grids],
    )
