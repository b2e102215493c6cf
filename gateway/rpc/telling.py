"""From the gateway's plain data to the gRPC door's messages."""

from collections.abc import Sequence

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
from gateway.prompt.builder import PreparedPrompt
from gateway.tiers.convert import FINISH_REASONS, grid_to_proto, spans_to_proto
from protos.tandem.v1 import decoder_pb2, gateway_pb2, tensor_pb2
from protos.wire import tensors

_FINISH_REASONS = {
    **{ours: wire for wire, ours in FINISH_REASONS.items()},
    FinishReason.TOOL_CALLS: decoder_pb2.FINISH_REASON_TOOL_CALLS,
}


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
