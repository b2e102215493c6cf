"""A request as it came over the wire, every field checked, as the engine takes it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder_service.rpc.spans import spans_from_proto
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.sequence.request import ReportOptions, Request
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire import sampling, tensors
from protos.wire.errors import (
    InvalidRequest,
    ModelMismatch,
    PromptTooLong,
    Unsupported,
)

MAX_REQUEST_ID_LENGTH = 128
MAX_SALT_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What this process accepts."""

    bundle: Bundle
    max_context: int
    allow_logits: bool


def request_from_proto(start: decoder_pb2.GenerateStart, limits: RequestLimits) -> Request:
    """Checks a whole request before anything is queued.

    Raises:
        InvalidRequest: a field is out of range; the error names it, expected and actual.
        PromptTooLong: the prompt leaves no room for an answer.
        ModelMismatch: the caller works with another bundle.
        Unsupported: logits where they are not allowed.
    """
    _check_identity(start, limits)
    _check_constraint_place(start, limits.bundle.manifest.text.vocab_size)
    input_ids = _input_ids(start, limits)
    length = len(input_ids)
    manifest = limits.bundle.manifest
    text, special = manifest.text, manifest.special_tokens
    max_tokens = _max_tokens(start.stop_conditions, limits.max_context - length)
    position_ids = tensors.int32_from_proto(
        start.position_ids, field="position_ids", shape=(3, length)
    )
    _check_positions(position_ids, start.position_delta, max_tokens, text.max_position_embeddings)
    sampling.check_range("priority", start.priority, -sampling.MAX_PRIORITY, sampling.MAX_PRIORITY)
    stop_token_ids = _stop_token_ids(start.stop_conditions, text.vocab_size, special.eos)
    return Request(
        request_id=start.request_id,
        input_ids=input_ids,
        position_ids=position_ids,
        position_delta=start.position_delta,
        spans=spans_from_proto(start, input_ids, (special.image, special.video)),
        sampling=_sampling_params(start.sampling_params, text.vocab_size),
        max_tokens=max_tokens,
        min_tokens=_min_tokens(start.stop_conditions),
        stop_token_ids=stop_token_ids,
        report=_report_options(start.report_options, limits.allow_logits),
        cache_salt=start.cache_salt,
        tenant=start.tenant,
        priority=start.priority,
        output_ids=_output_ids(start, max_tokens, stop_token_ids, text.vocab_size),
    )


def _check_identity(start: decoder_pb2.GenerateStart, limits: RequestLimits) -> None:
    request_id = start.request_id
    if not 1 <= len(request_id) <= MAX_REQUEST_ID_LENGTH or not request_id.isprintable():
        raise InvalidRequest(
            f"request_id has {len(request_id)} characters, expected 1 to"
            f" {MAX_REQUEST_ID_LENGTH} printable ones",
            param="request_id",
        )
    if start.bundle_digest and start.bundle_digest != limits.bundle.digest:
        raise ModelMismatch(
            "bundle_digest names another bundle than the one this decoder serves",
            param="bundle_digest",
        )
    for name in ("cache_salt", "tenant"):
        size = len(getattr(start, name))
        if size > MAX_SALT_BYTES:
            raise InvalidRequest(
                f"{name} has {size} bytes, expected at most {MAX_SALT_BYTES}", param=name
            )


def _check_constraint_place(start: decoder_pb2.GenerateStart, vocab_size: int) -> None:
    for field in ("constraint_after_token", "constraint_from_token"):
        if start.HasField(field):
            if not start.HasField("constraint"):
                raise InvalidRequest(f"{field} is set without a constraint", param=field)
            sampling.check_range(field, getattr(start, field), 0, vocab_size - 1)


def _input_ids(start: decoder_pb2.GenerateStart, limits: RequestLimits) -> npt.NDArray[np.int32]:
    length, manifest = len(start.input_ids), limits.bundle.manifest
    if length == 0:
        raise InvalidRequest("input_ids is empty, expected at least one token", param="input_ids")
    if length >= limits.max_context:
        raise PromptTooLong.of(
            limits.max_context,
            f"the prompt has {length} tokens, expected at most {limits.max_context - 1} with room"
            " for one token of answer",
            param="input_ids",
        )
    return _token_ids("input_ids", start.input_ids, manifest.text.vocab_size)


def _token_ids(field: str, values: Sequence[int], vocab_size: int) -> npt.NDArray[np.int32]:
    ids = np.array(values, dtype=np.int32)
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(wrong):
        raise InvalidRequest(
            f"{field}[{wrong[0]}] is {ids[wrong[0]]}, expected 0 to {vocab_size - 1}", param=field
        )
    return ids


def _output_ids(
    start: decoder_pb2.GenerateStart, max_tokens: int, ends: frozenset[int], vocab_size: int
) -> npt.NDArray[np.int32]:
    """The output so far, which is not at its end."""
    field = "output_ids"
    if len(start.output_ids) >= max_tokens:
        raise InvalidRequest(
            f"{field} has {len(start.output_ids)} tokens, expected fewer than the answer's"
            f" {max_tokens}",
            param=field,
        )
    output_ids = _token_ids(field, start.output_ids, vocab_size)
    ended = np.flatnonzero(np.isin(output_ids, list(ends)))
    if len(ended):
        raise InvalidRequest(
            f"{field}[{ended[0]}] is {output_ids[ended[0]]}, which ends the answer, expected"
            " tokens before its end",
            param=field,
        )
    return output_ids


def _check_positions(
    position_ids: npt.NDArray[np.int32], delta: int, max_tokens: int, end: int
) -> None:
    # A position beyond the graph's rotary table would be read from foreign memory.
    lowest, highest = int(position_ids.min()), int(position_ids.max())
    if lowest < 0 or highest >= end:
        raise InvalidRequest(
            f"position_ids holds {lowest} to {highest}, expected 0 to {end - 1}",
            param="position_ids",
        )
    first = position_ids.shape[1] + delta
    if first < 0 or first + max_tokens > end:
        raise InvalidRequest(
            f"position_delta is {delta}, which puts the answer at positions {first} to"
            f" {first + max_tokens - 1}, expected 0 to {end - 1}",
            param="position_delta",
        )


def _max_tokens(stop: decoder_pb2.StopConditions, room: int) -> int:
    """Most new tokens, never more than the `room` the context window leaves."""
    if not stop.HasField("max_tokens"):
        return room
    if stop.max_tokens < 1:
        raise InvalidRequest(
            f"stop_conditions.max_tokens is {stop.max_tokens}, expected at least 1",
            param="stop_conditions.max_tokens",
        )
    return min(stop.max_tokens, room)


def _min_tokens(stop: decoder_pb2.StopConditions) -> int:
    field = "stop_conditions.min_tokens"
    sampling.check_range(field, stop.min_tokens, 0, sampling.MAX_TOKENS)
    return stop.min_tokens


def _sampling_params(message: decoder_pb2.SamplingParams, vocab_size: int) -> SamplingParams:
    """How tokens are chosen; the table's defaults where unset."""
    sampling.check(message, vocab_size=vocab_size, prefix="sampling_params.")
    given = {name: getattr(message, name) for name in sampling.PARAMETERS if message.HasField(name)}
    biases = tuple((entry.token_id, entry.bias) for entry in message.logit_bias)
    return SamplingParams(**given, logit_bias=biases)


def _stop_token_ids(
    stop: decoder_pb2.StopConditions, vocab_size: int, eos_ids: Sequence[int]
) -> frozenset[int]:
    """Tokens that end generation: the caller's and, unless ignored, the model's own."""
    field = "stop_conditions.stop_token_ids"
    if len(stop.stop_token_ids) > sampling.MAX_STOP_TOKENS:
        raise InvalidRequest(
            f"{field} has {len(stop.stop_token_ids)} entries, expected at most"
            f" {sampling.MAX_STOP_TOKENS}",
            param=field,
        )
    for index, token_id in enumerate(stop.stop_token_ids):
        sampling.check_range(f"{field}[{index}]", token_id, 0, vocab_size - 1)
    return frozenset((*stop.stop_token_ids, *(() if stop.ignore_eos else eos_ids)))


def _report_options(message: decoder_pb2.ReportOptions, allow_logits: bool) -> ReportOptions:
    """What is to be reported; logits only where they are allowed."""
    field = "report_options.top_logprob_count"
    sampling.check_range(field, message.top_logprob_count, 0, sampling.MAX_TOP_LOGPROBS)
    if message.top_logprob_count and not message.logprobs:
        raise InvalidRequest(
            f"{field} is {message.top_logprob_count} without logprobs, expected 0", param=field
        )
    if message.logits and not allow_logits:
        raise Unsupported(
            "report_options.logits is set, but this decoder does not report logits",
            param="report_options.logits",
        )
    return ReportOptions(
        logprobs=message.logprobs,
        top_logprob_count=message.top_logprob_count,
        logits=message.logits,
    )
