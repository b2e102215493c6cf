"""A prompt that a caller prepared and brings features for, checked before any of them is read.

Everything about it must be as `Prepare` would have made it of the same ids and grids. Positions
too: they follow from ids and grids alone, and a prompt that was spliced further without new ones
would be answered wrongly and without an error. An encoder that gives an image other rows than its
grid has, or stands for other positions, is a matter for the decoder's own `Generate`, which takes
positions as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.prompt.splice import VisualSpan
from protos.media.images import Grid
from protos.media.videos import TEMPORAL_PATCH
from protos.wire.errors import InvalidRequest, PromptTooLong, Reason

IntArray = npt.NDArray[np.int32]

IDS, POSITIONS, SPANS, GRIDS = (
    f"prompt.{name}" for name in ("input_ids", "position_ids", "visual_spans", "grid_thw")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtSpan:
    """The place of one image or temporal patch, and what its features are said to be.

    Attributes:
        offset: First placeholder.
        length: Placeholders N.
        grid: Patches before merging.
        dtype: Of the features' values, as the wire numbers it.
        digest: SHA-256 of the features; see `protos.wire.features.digest`.
    """

    offset: int
    length: int
    grid: Grid
    dtype: int
    digest: bytes

    def name(self, key: bytes) -> bytes:
        """What decoders know the features by, 32 bytes.

        It follows from every byte of them, so that equal names mean equal features. Only who has
        the key can make it, and under a key of its own: no caller can choose features that are
        taken for another's, nor for those of an image that the gateway had encoded.
        """
        return blake3(self.dtype.to_bytes(4, "little") + self.digest, key=key).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtPrompt:
    """A spliced prompt as a caller sent it; nothing is checked but shapes."""

    input_ids: IntArray  # [S]
    position_ids: IntArray  # [3, S]
    position_delta: int
    spans: tuple[BroughtSpan, ...]

    def affinity(self, cache_salt: bytes) -> bytes:
        """A name that prompts with the same beginning share, 32 bytes.

        The beginning is everything up to the end of the first span, or all of a text.
        """
        first = self.spans[0] if self.spans else None
        end = len(self.input_ids) if first is None else first.offset
        named = blake3(cache_salt).update(self.input_ids[: max(0, end)].tobytes())
        return named.update(b"" if first is None else first.digest).digest()


def prepared(
    brought: BroughtPrompt,
    builder: PromptBuilder,
    name: Callable[[BroughtSpan], bytes],
    *,
    max_context: int,
) -> PreparedPrompt:
    """The same prompt, checked; its spans have names of the gateway's.

    Args:
        brought: As the caller sent it.
        builder: Of the bundle's prompts.
        name: What decoders know a span's features by.
        max_context: Most tokens of prompt and answer.

    Raises:
        InvalidRequest: a field at fault, named, with what was expected.
        PromptTooLong: no room is left for an answer.
    """
    ids = brought.input_ids
    check_room(len(ids), min(max_context, builder.max_context))
    _check_ids(ids, builder.vocab_size)
    is_image, is_video = (ids == placeholder for placeholder in builder.placeholders)
    _check_spans(brought, is_image, is_video)
    _check_grids(brought, builder.settings.merge_size)
    _check_counts(brought, is_image, builder)
    spans = tuple(
        VisualSpan(offset=span.offset, length=span.length, digest=name(span))
        for span in brought.spans
    )
    grids = tuple(span.grid for span in brought.spans)
    positions = builder.positions(len(ids), spans, grids)
    _check_positions(brought, positions.ids, positions.delta)
    return PreparedPrompt(
        input_ids=ids,
        position_ids=positions.ids,
        position_delta=positions.delta,
        spans=spans,
        grids=grids,
        visuals=(),
        image_tokens=int(is_image.sum()),
        video_tokens=int(is_video.sum()),
        thought_end=builder.open_thought_end(ids.tolist()),
    )


def check_room(length: int, window: int) -> None:
    """Checks that there is a prompt, and that an answer has room behind it.

    Raises:
        InvalidRequest: it is empty.
        PromptTooLong: with the counts.
    """
    if length == 0:
        raise InvalidRequest(f"{IDS} is empty, expected at least one token", param=IDS)
    if length >= window:
        raise PromptTooLong.of(
            window,
            f"{IDS} has {length} tokens > limit {window - 1} with room for one token of answer",
            param=IDS,
        )


def _check_ids(ids: IntArray, vocab_size: int) -> None:
    wrong = np.flatnonzero((ids < 0) | (ids >= vocab_size))
    if len(wrong):
        at = int(wrong[0])
        raise InvalidRequest(f"{IDS}[{at}] is {ids[at]}, expected 0 to {vocab_size - 1}", param=IDS)


def _check_spans(
    brought: BroughtPrompt, is_image: npt.NDArray[np.bool_], is_video: npt.NDArray[np.bool_]
) -> None:
    """Spans ascend, and cover exactly the placeholders, each those of one kind."""
    length, end = len(brought.input_ids), 0
    covered = np.zeros(length, dtype=np.bool_)
    for at, span in enumerate(brought.spans):
        field = f"{SPANS}[{at}]"
        if span.length < 1 or not end <= span.offset <= length - span.length:
            raise _bad_span(
                field,
                f"is offset {span.offset}, length {span.length}, expected at least one placeholder"
                f" between {end} and the prompt's end at {length}: spans are in order and do not"
                " overlap",
            )
        end = span.offset + span.length
        covered[span.offset : end] = True
        if is_image[span.offset : end].any() and is_video[span.offset : end].any():
            raise _bad_span(field, "covers placeholders of images and of videos, expected one kind")
    wrong = np.flatnonzero(covered != (is_image | is_video))
    if len(wrong):
        fault = "is no placeholder" if covered[wrong[0]] else "is a placeholder in no span"
        raise _bad_span(
            SPANS,
            f"must cover exactly the placeholders: {IDS}[{wrong[0]}] {fault} ({covered.sum()}"
            f" tokens covered, {(is_image | is_video).sum()} placeholders in the prompt)",
        )


def _check_grids(brought: BroughtPrompt, merge_size: int) -> None:
    for at, span in enumerate(brought.spans):
        field, grid = f"{GRIDS}[{at}]", span.grid
        is_whole = min(grid.h, grid.w) >= 1 and grid.h % merge_size == grid.w % merge_size == 0
        if grid.t != 1 or not is_whole:
            raise InvalidRequest(
                f"{field} is {grid}, expected t = 1 and positive multiples of {merge_size} for h"
                " and w",
                param=field,
            )
        if grid.tokens(merge_size) != span.length:
            raise InvalidRequest(
                f"{field} is {grid}, which is {grid.tokens(merge_size)} tokens, expected the"
                f" {span.length} of its span",
                reason=Reason.SHAPE_MISMATCH,
                param=field,
            )


def _check_counts(
    brought: BroughtPrompt, is_image: npt.NDArray[np.bool_], builder: PromptBuilder
) -> None:
    """As many images and temporal patches as a conversation may have."""
    media, videos = builder.limits.media, builder.limits.videos
    images = sum(bool(is_image[span.offset]) for span in brought.spans)
    most_patches = videos.max_request_videos * -(-videos.max_frames // TEMPORAL_PATCH)
    counts = (
        ("images", images, media.max_request_images),
        ("temporal patches of videos", len(brought.spans) - images, most_patches),
    )
    for what, count, most in counts:
        if count > most:
            raise _bad_span(SPANS, f"holds {count} {what}, expected at most {most}")


def _check_positions(brought: BroughtPrompt, wanted: IntArray, delta: int) -> None:
    wrong = np.argwhere(brought.position_ids != wanted)
    if len(wrong):
        axis, at = map(int, wrong[0])
        raise InvalidRequest(
            f"{POSITIONS}[{axis}][{at}] is {brought.position_ids[axis, at]}, expected"
            f" {wanted[axis, at]}, as such ids and grids have it",
            param=POSITIONS,
        )
    if brought.position_delta != delta:
        field = "prompt.position_delta"
        raise InvalidRequest(f"{field} is {brought.position_delta}, expected {delta}", param=field)


def _bad_span(field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {fault}", reason=Reason.INVALID_SPAN, param=field)
