"""Expands markers to placeholders and ties them to images and temporal patches of videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protos.wire.errors import InvalidRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualSpan:
    """The placeholders of one image or temporal patch: `length` of them from `offset` on."""

    offset: int
    length: int
    digest: bytes  # names the image's features; equal digests mean equal features


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicedPrompt:
    """Token ids after expansion, int32 [S], and one span per image or temporal patch, ascending.

    `order` says what each span shows: its place among all images, or, behind them, among the
    temporal patches of all videos.
    """

    input_ids: npt.NDArray[np.int32]
    spans: tuple[VisualSpan, ...]
    order: tuple[int, ...]


class Frames(NamedTuple):
    """One temporal patch of a video: its placeholders, and the digest of its features."""

    length: int
    digest: bytes


def splice(
    ids: Sequence[int],
    lengths: Sequence[int],
    digests: Sequence[bytes],
    *,
    image_id: int,
    video_id: int,
    frames: Sequence[Frames] = (),
) -> SplicedPrompt:
    """Expands the i-th image marker of a prompt to `lengths[i]` placeholders, and video markers.

    Args:
        ids: Token ids of the rendered prompt, one marker per image and per temporal patch.
        lengths: Placeholders of each image, >= 1, in prompt order.
        digests: Digest of each image.
        image_id: The image marker's token id, which is also the placeholder's.
        video_id: The video marker's, likewise.
        frames: The temporal patches of all videos, in prompt order.

    Raises:
        InvalidRequest: param "messages"; the chat template left out an image or video.

    **Source**: transformers `Qwen3VLProcessor.replace_image_token`; parity in
    tests/parity/test_prompt_ids.py.
    """
    marked = np.asarray(ids, dtype=np.int32)
    if not (lengths or frames):  # as most prompts are
        check_places("images", ids.count(image_id), 0)
        check_places("videos", ids.count(video_id), 0)
        return SplicedPrompt(input_ids=marked, spans=(), order=())
    is_image = marked == image_id
    check_places("images", int(is_image.sum()), len(lengths))
    check_places("videos", int((marked == video_id).sum()), len(frames))
    places = np.flatnonzero(is_image | (marked == video_id))
    order = np.where(is_image, np.cumsum(is_image), len(lengths) + np.cumsum(marked == video_id))[
        places
    ]
    order -= 1  # cumsum counts from one
    all_lengths = np.array([*lengths, *(patch.length for patch in frames)], dtype=np.int64)[order]
    all_digests = [*digests, *(patch.digest for patch in frames)]
    repeats = np.ones(len(marked), dtype=np.int64)
    repeats[places] = all_lengths
    offsets = places + np.cumsum([0, *(all_lengths - 1)])[: len(places)]
    spans = tuple(
        VisualSpan(offset=int(offset), length=int(length), digest=all_digests[index])
        for offset, length, index in zip(offsets, all_lengths, order, strict=True)
    )
    return SplicedPrompt(
        input_ids=np.repeat(marked, repeats), spans=spans, order=tuple(order.tolist())
    )


def check_places(kind: str, places: int, count: int) -> None:
    """Checks that the chat template has a place for everything there is.

    Raises:
        InvalidRequest: it has not.
    """
    if places != count:
        raise InvalidRequest(
            f"messages hold {count} {kind}, the model's chat template has a place for"
            f" {places} of them; only user and tool messages may hold {kind}",
            param="messages",
        )
