"""Where images lie in a prompt, as a request says it."""

import numpy as np
import numpy.typing as npt

from decoder_service.sequence.request import Span
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import InvalidRequest, Reason

MAX_DIGEST_BYTES = 64


def spans_from_proto(
    start: decoder_pb2.GenerateStart,
    input_ids: npt.NDArray[np.int32],
    placeholders: tuple[int, ...],
) -> tuple[Span, ...]:
    """Checks that spans are ordered and cover exactly the placeholders.

    Args:
        start: As it came.
        input_ids: Its prompt, int32 [S].
        placeholders: Token ids that stand for images and videos.

    Raises:
        InvalidRequest: INVALID_SPAN, they are not.
    """
    covered = np.zeros(len(input_ids), dtype=np.bool_)
    is_visual = np.isin(input_ids, placeholders)
    spans: list[Span] = []
    previous_end = 0
    for index, message in enumerate(start.visual_spans):
        span = _span(message, f"visual_spans[{index}]", previous_end, len(input_ids))
        previous_end = span.end
        covered[span.offset : span.end] = True
        spans.append(span)
    wrong = np.flatnonzero(covered != is_visual)
    if len(wrong):
        inside = "lies in a span but is no placeholder" if covered[wrong[0]] else "is a placeholder"
        raise _invalid(
            f"input_ids[{wrong[0]}] {inside}, expected visual_spans to cover exactly the"
            f" placeholder tokens ({int(covered.sum())} covered, "
            f"{int(is_visual.sum())} in the prompt)",
            "visual_spans",
        )
    return tuple(spans)


def _span(
    message: decoder_pb2.VisualSpan, name: str, previous_end: int, prompt_length: int
) -> Span:
    if message.length < 1 or not 0 <= message.offset <= prompt_length - message.length:
        raise _invalid(
            f"{name} is offset {message.offset}, length {message.length}, expected at least one"
            f" placeholder within the prompt's {prompt_length} tokens",
            name,
        )
    if message.offset < previous_end:
        raise _invalid(
            f"{name} begins at {message.offset}, expected {previous_end} or later: spans are"
            " ordered and do not overlap",
            name,
        )
    if len(message.digest) > MAX_DIGEST_BYTES:
        raise _invalid(
            f"{name}.digest has {len(message.digest)} bytes, expected at most {MAX_DIGEST_BYTES}",
            f"{name}.digest",
        )
    return Span(offset=message.offset, length=message.length, digest=message.digest)


def _invalid(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, reason=Reason.INVALID_SPAN, param=param)
