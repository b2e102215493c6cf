"""Between the gateway's plain data and the messages of the decoder's and vision tier's wires."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gateway.answer.events import (
    Admitted,
    DecoderEnd,
    FinishReason,
    OutputToken,
    TopToken,
)
from gateway.media.images import PlannedImage, TierLimits
from gateway.media.pdfs import Page, PdfLimits
from gateway.media.video_plans import PlannedFrames
from gateway.prompt.builder import PreparedPrompt
from gateway.prompt.splice import VisualSpan
from gateway.request.constraint import ConstraintKind, ConstraintSpec
from gateway.request.ids import choice_id, moved_id
from gateway.request.job import ChatJob, Reporting, Stopping
from gateway.request.sampling import for_choice
from gateway.tools.form import AnswerForm
from protos.media.images import Grid
from protos.media.videos import FrameSampling, SampledFrames
from protos.tandem.v1 import decoder_pb2, tensor_pb2, vision_pb2
from protos.wire import tensors
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError, error_for
from protos.wire.sampling import PARAMETERS

logger = logging.getLogger(__name__)

FINISH_REASONS = {
    decoder_pb2.FINISH_REASON_STOP: FinishReason.STOP,
    decoder_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}

# The decoder's field names and what clients call them; the rest is the gateway's own doing.
_SAME_NAMES = (
    "logit_bias",
    "max_tokens",
    "min_tokens",
    "stop_token_ids",
    "logprobs",
    "logits",
    "priority",
)
_CLIENT_NAMES = {
    "input_ids": "messages",
    "request_id": "request_id",
    "top_logprob_count": "top_logprobs",
    **{name: name for name in (*PARAMETERS, *_SAME_NAMES)},
}


class Progress(NamedTuple):
    """How far other decoders came with an answer: its tokens, and how it is to go on."""

    output_ids: Sequence[int]
    max_tokens: int  # of the whole answer, as the first decoder would have let it become
    moves: int  # decoders it was moved away from


def start_to_proto(
    job: ChatJob,
    prompt: PreparedPrompt,
    form: AnswerForm,
    *,
    choice: int,
    bundle_digest: str,
    progress: Progress | None = None,
) -> decoder_pb2.GenerateStart:
    """The first message of a Generate call for one choice of a job."""
    question = job.question
    place = question.first_choice + choice
    start = decoder_pb2.GenerateStart(
        request_id=choice_id(job.request_id, place),
        bundle_digest=bundle_digest,
        input_ids=prompt.input_ids.tolist(),
        position_ids=tensors.to_proto(prompt.position_ids),
        position_delta=prompt.position_delta,
        visual_spans=spans_to_proto(prompt.spans),
        sampling_params=for_choice(job.sampling, choice),
        stop_conditions=stopping_to_proto(question.stopping),
        report_options=reporting_to_proto(question.reporting),
        cache_salt=job.cache_salt,
        tenant=job.tenant,
        priority=-job.priority,  # the decoder serves higher ones first
        constraint=None if form.constraint is None else constraint_to_proto(form.constraint),
        constraint_after_token=None if form.constraint is None else prompt.thought_end,
        constraint_from_token=form.begin,
    )
    if progress is not None:
        start.request_id = moved_id(start.request_id, progress.moves)
        start.output_ids.extend(progress.output_ids)
        start.stop_conditions.max_tokens = progress.max_tokens
    return start


def spans_to_proto(spans: Sequence[VisualSpan]) -> list[decoder_pb2.VisualSpan]:
    """The images' places in a prompt."""
    return [
        decoder_pb2.VisualSpan(offset=span.offset, length=span.length, digest=span.digest)
        for span in spans
    ]


def stopping_to_proto(stopping: Stopping) -> decoder_pb2.StopConditions:
    """Stop strings stay behind: the gateway finds them."""
    return decoder_pb2.StopConditions(
        max_tokens=stopping.max_tokens,
        stop_token_ids=stopping.stop_token_ids,
        ignore_eos=stopping.ignore_eos,
        min_tokens=stopping.min_tokens or None,
    )


def reporting_to_proto(reporting: Reporting) -> decoder_pb2.ReportOptions:
    """What the decoder should report beside tokens."""
    return decoder_pb2.ReportOptions(
        logprobs=reporting.logprobs,
        top_logprob_count=reporting.top_logprob_count,
        logits=reporting.logits,
    )


def constraint_to_proto(constraint: ConstraintSpec) -> decoder_pb2.Constraint:
    """What the output must look like."""
    message = _kind_to_proto(constraint)
    if constraint.whitespace_pattern is not None:
        message.whitespace_pattern = constraint.whitespace_pattern
    if constraint.disable_any_whitespace:
        message.disable_any_whitespace = True
    return message


def _kind_to_proto(constraint: ConstraintSpec) -> decoder_pb2.Constraint:
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            return decoder_pb2.Constraint(json_schema=constraint.text)
        case ConstraintKind.JSON_OBJECT:
            return decoder_pb2.Constraint(json_object=True)
        case ConstraintKind.REGEX:
            return decoder_pb2.Constraint(regex=constraint.text)
        case ConstraintKind.CHOICE:
            return decoder_pb2.Constraint(choice=decoder_pb2.Choice(texts=constraint.texts))
        case ConstraintKind.LARK:
            return decoder_pb2.Constraint(lark=constraint.text, token_ids=constraint.token_ids)


def grid_to_proto(grid: Grid) -> tensor_pb2.GridTHW:
    """A patch grid."""
    return tensor_pb2.GridTHW(t=grid.t, h=grid.h, w=grid.w)


def encode_to_proto(
    source: PlannedImage | PlannedFrames, *, request_id: str, bundle_digest: str
) -> vision_pb2.EncodeRequest:
    """The call that encodes an image, or some temporal patches of a video."""
    request = vision_pb2.EncodeRequest(
        request_id=request_id,
        bundle_digest=bundle_digest,
        expected_grid_thw=grid_to_proto(source.grid),
    )
    if isinstance(source, PlannedImage):
        request.image = source.data
        request.min_pixels, request.max_pixels = source.areas
    else:
        request.video.file = source.file
        request.video.frame_indices.extend(source.indices)
        request.video.images.extend(source.images)
    return request


def sampling_to_proto(
    file: bytes, sampling: FrameSampling, *, request_id: str, bundle_digest: str
) -> vision_pb2.SampleVideoRequest:
    """The call that chooses frames of a video."""
    return vision_pb2.SampleVideoRequest(
        request_id=request_id,
        bundle_digest=bundle_digest,
        file=file,
        fps=sampling.fps,
        min_frames=sampling.min_frames,
        max_frames=sampling.max_frames,
        frame_count=sampling.frame_count,
    )


def sampled_from_proto(message: vision_pb2.SampledVideo) -> SampledFrames:
    """The frames that were chosen.

    Raises:
        ServiceError: DATA_LOSS, they are none, or of no size.
    """
    if not message.frames or min(message.width, message.height) < 1:
        raise ServiceError("the vision tier chose no frames", reason=Reason.DATA_LOSS)
    return SampledFrames(
        tuple(frame.index for frame in message.frames),
        tuple(frame.seconds for frame in message.frames),
        message.width,
        message.height,
    )


def rendering_to_proto(
    file: bytes, limits: PdfLimits, *, request_id: str, bundle_digest: str
) -> vision_pb2.RenderPdfRequest:
    """The call that makes a PDF's pages."""
    return vision_pb2.RenderPdfRequest(
        request_id=request_id,
        bundle_digest=bundle_digest,
        file=file,
        page_pixels=limits.page_pixels,
        max_pages=limits.max_pages,
    )


def pages_from_proto(messages: Sequence[vision_pb2.PdfPage]) -> tuple[Page, ...]:
    """The pages that were made.

    Raises:
        ServiceError: DATA_LOSS, there are none, or one has no image.
    """
    if not messages or not all(message.image for message in messages):
        raise ServiceError("the vision tier made no pages", reason=Reason.DATA_LOSS)
    return tuple(Page(message.image, message.text) for message in messages)


def limits_from_proto(info: tensor_pb2.ModelInfo) -> TierLimits | None:
    """What a vision tier says one image may be; None from one of an earlier release."""
    if not (info.max_image_bytes and info.max_image_pixels and info.max_image_patches):
        return None
    return TierLimits(
        max_image_bytes=info.max_image_bytes,
        max_image_pixels=info.max_image_pixels,
        max_image_patches=info.max_image_patches,
        max_video_bytes=info.max_video_bytes,
        max_video_seconds=info.max_video_seconds,
        max_pdf_bytes=info.max_pdf_bytes,
    )


def admitted_from_proto(message: decoder_pb2.Admission) -> Admitted:
    """What the decoder needs before it can prefill."""
    return Admitted(cached_tokens=message.cached_tokens, needed_spans=tuple(message.needed_spans))


def tokens_from_proto(message: decoder_pb2.TokenChunk) -> tuple[OutputToken, ...]:
    """The new tokens, each with what was reported about it.

    Raises:
        ServiceError: DATA_LOSS, the lists of a chunk have different lengths.
    """
    if not message.logprobs and not message.HasField("logits"):
        return tuple(map(_plain_token, message.token_ids))
    count = len(message.token_ids)
    rows: list[bytes | None] = [None] * count
    if message.HasField("logits"):
        data, width = message.logits.data, len(message.logits.data) // max(count, 1)
        rows = [data[at * width : (at + 1) * width] for at in range(count)]
    if message.logprobs and len(message.logprobs) != count:
        raise ServiceError("the decoder sent a malformed answer", reason=Reason.DATA_LOSS)
    tokens = []
    for at, token_id in enumerate(message.token_ids):
        reported = message.logprobs[at] if message.logprobs else None
        tokens.append(
            OutputToken(
                token_id=token_id,
                logprob=None if reported is None else reported.logprob,
                top=() if reported is None else _top_from_proto(reported),
                logits=rows[at],
            )
        )
    return tuple(tokens)


@lru_cache(1 << 18)
def _plain_token(token_id: int) -> OutputToken:
    """A token of which nothing is reported; one of each id, since they are many."""
    return OutputToken(token_id=token_id)


def _top_from_proto(message: decoder_pb2.TokenLogprobs) -> tuple[TopToken, ...]:
    return tuple(TopToken(token_id=top.token_id, logprob=top.logprob) for top in message.top)


def end_from_proto(message: decoder_pb2.Completion) -> DecoderEnd:
    """How the sequence ended.

    Raises:
        ServiceError: DATA_LOSS, it ended for a reason this release does not know.
    """
    if message.finish_reason not in FINISH_REASONS:
        raise ServiceError("the decoder ended without a known reason", reason=Reason.DATA_LOSS)
    return DecoderEnd(
        finish_reason=FINISH_REASONS[message.finish_reason],
        completion_tokens=message.completion_tokens,
        cached_tokens=message.cached_tokens,
        timings=message.timings,
    )


def decoder_error_for_client(
    error: ServiceError, constraint: ConstraintSpec | None = None
) -> ServiceError:
    """A decoder's error in the client's words.

    A complaint about a field that no client can set (positions, spans) is a bug between the
    tiers, so it is logged and becomes INTERNAL. One about the constraint names the field the
    client used for it.
    """
    if error.param is None:
        return error
    if constraint is not None and error.param.partition(".")[0] == "constraint":
        message = error.message.replace(error.param, constraint.field, 1)
        return error_for(error.reason, message, param=constraint.field)
    steps = (step.partition("[")[0] for step in error.param.split("."))
    field = next((_CLIENT_NAMES[step] for step in steps if step in _CLIENT_NAMES), None)
    return _renamed(error, field, tier="decoder")


def vision_error_for_client(error: ServiceError, *, field: str) -> ServiceError:
    """A vision tier's error in the client's words; `field` is the file's place in the request."""
    if error.param == "pdf":  # those who sent one know it by its place alone
        message = error.message.replace("pdf", field, 1)
        return error_for(error.reason, message, param=field)
    if isinstance(error, InvalidRequest) and error.param in (None, "image", "video"):
        return _renamed(error, field, tier="vision")
    return error if error.param is None else _renamed(error, None, tier="vision")


def _renamed(error: ServiceError, field: str | None, *, tier: str) -> ServiceError:
    if field is None and isinstance(error, InvalidRequest):
        logger.error("the %s tier refused what the gateway made: %s", tier, error.message)
        return InternalError("internal error")
    return error_for(error.reason, error.message, param=field, retry_after_s=error.retry_after_s)
