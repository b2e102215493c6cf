"""What the engine answers, as messages."""

from collections.abc import Sequence

import numpy as np

from decoder_service.schedule.residency import Admission
from decoder_service.sequence.request import Completion, FinishReason, Token
from protos.tandem.v1 import decoder_pb2
from protos.wire import tensors

_FINISH_REASONS = {
    FinishReason.STOP: decoder_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: decoder_pb2.FINISH_REASON_LENGTH,
}


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
