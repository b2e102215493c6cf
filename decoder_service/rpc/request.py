"""Wire messages to domain values and back, every field checked on the way in."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder_service.rpc import parameters
from decoder_service.rpc.features import FeatureRows
from decoder_service.schedule.residency import Admission
from decoder_service.sequence.request import Completion, FinishReason, Request, Span, Token
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire import tensors
from protos.wire.errors import (
    InvalidRequest,
    ModelMismatch,
    PromptTooLong,
    Reason,
    ServiceError,
    Unsupported,
)

MAX_REQUEST_ID_LENGTH = 128
MAX_DIGEST_BYTES = 64
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
        Unsupported: video, or logits where they are not allowed.
    """
    _check_identity(start, limits)
    input_ids = _input_ids(start, limits)
    length = len(input_ids)
    manifest = limits.bundle.manifest
    text = manifest.text
    max_tokens = parameters.max_tokens(start.stop_conditions, limits.max_context - length)
    position_ids = tensors.int32_from_proto(
        start.position_ids, field="position_ids", shape=(3, length)
    )
    _check_positions(position_ids, start.position_delta, max_tokens, text.max_position_embeddings)
    parameters.check_range("priority", start.priority, -100, 100)
    return Request(
        request_id=start.request_id,
        input_ids=input_ids,
        position_ids=position_ids,
        position_delta=start.position_delta,
        spans=_spans(start, input_ids, manifest.special_tokens.image),
        sampling=parameters.sampling_params(start.sampling_params, text.vocab_size),
        max_tokens=max_tokens,
        stop_token_ids=parameters.stop_token_ids(
            start.stop_conditions, text.vocab_size, manifest.special_tokens.eos
        ),
        report=parameters.report_options(start.report_options, limits.allow_logits),
        cache_salt=start.cache_salt,
        priority=start.priority,
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
    if len(start.cache_salt) > MAX_SALT_BYTES:
        raise InvalidRequest(
            f"cache_salt has {len(start.cache_salt)} bytes, expected at most {MAX_SALT_BYTES}",
            param="cache_salt",
        )


def _input_ids(start: decoder_pb2.GenerateStart, limits: RequestLimits) -> npt.NDArray[np.int32]:
    length, manifest = len(start.input_ids), limits.bundle.manifest
    if length == 0:
        raise InvalidRequest("input_ids is empty, expected at least one token", param="input_ids")
    if length >= limits.max_context:
        raise PromptTooLong(
            f"the prompt has {length} tokens, expected at most {limits.max_context - 1}:"
            f" the context window holds {limits.max_context} with the answer",
            param="input_ids",
        )
    input_ids = np.array(start.input_ids, dtype=np.int32)
    wrong = np.flatnonzero((input_ids < 0) | (input_ids >= manifest.text.vocab_size))
    if len(wrong):
        raise InvalidRequest(
            f"input_ids[{wrong[0]}] is {input_ids[wrong[0]]}, expected 0 to"
            f" {manifest.text.vocab_size - 1}",
            param="input_ids",
        )
    videos = np.flatnonzero(input_ids == manifest.special_tokens.video)
    if len(videos):
        raise Unsupported(
            f"input_ids[{videos[0]}] is the video placeholder; this decoder takes images only",
            reason=Reason.VIDEO_NOT_SUPPORTED,
            param="input_ids",
        )
    return input_ids


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


def _spans(
    start: decoder_pb2.GenerateStart, input_ids: npt.NDArray[np.int32], placeholder: int
) -> tuple[Span, ...]:
    covered = np.zeros(len(input_ids), dtype=np.bool_)
    spans: list[Span] = []
    previous_end = 0
    for index, span in enumerate(start.visual_spans):
        name = f"visual_spans[{index}]"
        if span.length < 1 or not 0 <= span.offset <= len(input_ids) - span.length:
            raise _invalid_span(
                f"{name} is offset {span.offset}, length {span.length}, expected at least one"
                f" placeholder within the prompt's {len(input_ids)} tokens",
                name,
            )
        if span.offset < previous_end:
            raise _invalid_span(
                f"{name} begins at {span.offset}, expected {previous_end} or later: spans are"
                " ordered and do not overlap",
                name,
            )
        if len(span.digest) > MAX_DIGEST_BYTES:
            raise _invalid_span(
                f"{name}.digest has {len(span.digest)} bytes, expected at most {MAX_DIGEST_BYTES}",
                f"{name}.digest",
            )
        previous_end = span.offset + span.length
        covered[span.offset : previous_end] = True
        spans.append(Span(offset=span.offset, length=span.length, digest=span.digest))
    wrong = np.flatnonzero(covered != (input_ids == placeholder))
    if len(wrong):
        inside = "lies in a span but is no placeholder" if covered[wrong[0]] else "is a placeholder"
        raise _invalid_span(
            f"input_ids[{wrong[0]}] {inside}, expected visual_spans to cover exactly the"
            f" placeholder tokens ({int(covered.sum())} covered, "
            f"{int((input_ids == placeholder).sum())} in the prompt)",
            "visual_spans",
        )
    return tuple(spans)


def _invalid_span(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, reason=Reason.INVALID_SPAN, param=param)


def feature_rows_from_proto(message: decoder_pb2.SpanFeatures, hidden_size: int) -> FeatureRows:
    """Decodes one chunk of features.

    Raises:
        InvalidRequest: dtype, shape, no rows, or non-finite values.
        ServiceError: DATA_LOSS when the checksum does not fit the bytes.
    """
    chunk, field = message.chunk, "features.chunk.values"
    if chunk.HasField("crc32") and zlib.crc32(chunk.values.data) != chunk.crc32:
        raise ServiceError(
            f"{field} does not match its checksum: bytes were damaged on the way",
            reason=Reason.DATA_LOSS,
            param=field,
        )
    values = tensors.float32_from_proto(chunk.values, field=field, shape=(None, hidden_size))
    if len(values) == 0:
        raise InvalidRequest(
            f"{field} has no rows, expected at least 1",
            reason=Reason.SHAPE_MISMATCH,
            param=field,
        )
    return FeatureRows(
        span_index=message.span_index,
        level=chunk.level,
        row_offset=chunk.row_offset,
        values=values,
    )


def admission_to_proto(admission: Admission) -> decoder_pb2.GenerateResponse:
    """The first message."""
    message = decoder_pb2.Admission(
        cached_tokens=admission.cached_tokens, needed_spans=admission.needed_spans
    )
    return decoder_pb2.GenerateResponse(admission=message)


def tokens_to_proto(tokens: Sequence[Token]) -> decoder_pb2.GenerateResponse:
    """One message of new tokens; at least one."""
    chunk = decoder_pb2.TokenChunk(token_ids=[token.token_id for token in tokens])
    for token in tokens:
        if token.logprobs is not None:
            entry = chunk.logprobs.add(logprob=token.logprobs.logprob)
            for token_id, logprob in token.logprobs.top:
                entry.top.add(token_id=token_id, logprob=logprob)
    rows = [token.logits for token in tokens if token.logits is not None]
    if rows:
        chunk.logits.CopyFrom(tensors.to_proto(np.stack(rows)))
    return decoder_pb2.GenerateResponse(tokens=chunk)


_FINISH_REASONS = {
    FinishReason.STOP: decoder_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: decoder_pb2.FINISH_REASON_LENGTH,
}


def completion_to_proto(completion: Completion) -> decoder_pb2.GenerateResponse:
    """The last message."""
    message = decoder_pb2.Completion(
        finish_reason=_FINISH_REASONS[completion.finish_reason],
        stop_token_id=completion.stop_token_id,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        cached_tokens=completion.cached_tokens,
        drafted_tokens=completion.drafted_tokens,
        accepted_tokens=completion.accepted_tokens,
        timings=completion.timings,
    )
    return decoder_pb2.GenerateResponse(completion=message)
