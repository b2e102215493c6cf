"""Expands image markers to placeholders and ties them to images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos.wire.errors import InvalidRequest, Reason, Unsupported


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualSpan:
    """The placeholders of one image: `length` of them from `offset` on."""

    offset: int
    length: int
    digest: bytes  # names the image's features; equal digests mean equal features


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicedPrompt:
    """Token ids after expansion, int32 [S], and one span per image, ascending."""

    input_ids: npt.NDArray[np.int32]
    spans: tuple[VisualSpan, ...]


def splice(
    ids: Sequence[int],
    lengths: Sequence[int],
    digests: Sequence[bytes],
    *,
    image_id: int,
    video_id: int,
) -> SplicedPrompt:
    """Expands the i-th image marker of a prompt to `lengths[i]` placeholders.

    Args:
        ids: Token ids of the rendered prompt, one marker per image.
        lengths: Placeholders of each image, >= 1, in prompt order.
        digests: Digest of each image.
        image_id: The image marker's token id, which is also the placeholder's.
        video_id: The video marker's token id.

    Raises:
        InvalidRequest: param "messages"; the chat template left out an image.
        Unsupported: VIDEO_NOT_SUPPORTED, the prompt asks for a video.

    **Source**: transformers `Qwen3VLProcessor.replace_image_token`; parity in
    tests/parity/test_prompt_ids.py.
    """
    marked = np.asarray(ids, dtype=np.int32)
    if (marked == video_id).any():
        raise Unsupported(
            "messages hold a video, which is not supported yet",
            reason=Reason.VIDEO_NOT_SUPPORTED,
            param="messages",
        )
    places = np.flatnonzero(marked == image_id)
    if len(places) != len(lengths):
        raise InvalidRequest(
            f"messages hold {len(lengths)} images, the model's chat template has a place for"
            f" {len(places)} of them; only user and tool messages may hold images",
            param="messages",
        )
    repeats = np.ones(len(marked), dtype=np.int64)
    repeats[places] = lengths
    offsets = places + np.cumsum([0, *(length - 1 for length in lengths)])[: len(places)]
    spans = tuple(
        VisualSpan(offset=int(offset), length=length, digest=digest)
        for offset, length, digest in zip(offsets, lengths, digests, strict=True)
    )
    return SplicedPrompt(input_ids=np.repeat(marked, repeats), spans=spans)
