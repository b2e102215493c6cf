"""Qwen3-VL: its markers, and its interleaved MRoPE positions, in NumPy."""

from collections.abc import Callable, Sequence

import numpy as np

from gateway.media.images import PlannedImage
from gateway.media.video_plans import PlannedVideo
from gateway.prompt.families.family import Positions, PromptFamily
from gateway.prompt.splice import Frames, SplicedPrompt, VisualSpan, check_places, splice
from gateway.tools.json_calls import JSON_CALLS
from protos.bundle.manifest import SpecialTokens
from protos.media.images import Grid


def expand(
    ids: Sequence[int],
    images: Sequence[PlannedImage],
    videos: Sequence[PlannedVideo],
    special: SpecialTokens,
    encode_text: Callable[[str], list[int]],
) -> SplicedPrompt:
    """Placeholders for markers: an image's or video's marker is also its placeholder.

    A video's marker becomes, for each temporal patch, its time in words and its placeholders
    between the tokens around visual input; the pair that the template writes around the marker
    stays. See `splice`.

    Args:
        ids: Token ids of the rendered prompt.
        images: In prompt order.
        videos: The same.
        special: The bundle's special tokens.
        encode_text: Token ids of a plain text.

    Raises:
        InvalidRequest: the chat template left out an image or video.

    **Source**: transformers `Qwen3VLProcessor.replace_video_token` (5.23; 4.57 replaced the
    template's pair, too); parity in tests/parity/test_videos.py.
    """
    return splice(
        _with_times(ids, videos, special, encode_text) if videos else ids,
        [image.token_count for image in images],
        [image.digest for image in images],
        image_id=special.image,
        video_id=special.video,
        frames=[Frames(video.patch_tokens, digest) for video in videos for digest in video.digests],
    )


def _with_times(
    ids: Sequence[int],
    videos: Sequence[PlannedVideo],
    special: SpecialTokens,
    encode_text: Callable[[str], list[int]],
) -> list[int]:
    """One marker for each temporal patch, its time before it."""
    check_places("videos", sum(token == special.video for token in ids), len(videos))
    left = iter(videos)
    found: list[int] = []
    for token in ids:
        if token != special.video:
            found.append(token)
            continue
        for seconds in next(left).seconds:
            found += encode_text(f"<{seconds:.1f} seconds>")
            found += (special.vision_start, special.video, special.vision_end)
    return found


def position_ids(
    length: int, spans: Sequence[VisualSpan], grids: Sequence[Grid], merge_size: int
) -> Positions:
    """Three-axis rotary positions of a prompt with images and videos.

    Text advances all three axes together. An image stands on one grid of rows and columns
    (after merging) that begins where the text before it ended; text after it goes on at that
    start plus the grid's longer side.

    Args:
        length: Prompt length S after expansion, >= 1.
        spans: The placeholders of each image, ascending.
        grids: Patch grid of each image or temporal patch before merging, t = 1, in the order of
            `spans`.
        merge_size: Patches per placeholder side.

    **Source**: transformers `Qwen3VLModel.get_rope_index`; parity in
    tests/parity/test_mrope.py.
    """
    positions = np.empty((3, length), dtype=np.int32)
    done, position = 0, 0
    for span, grid in zip(spans, grids, strict=True):
        gap = span.offset - done
        positions[:, done : span.offset] = np.arange(position, position + gap)
        position += gap
        rows, columns = grid.h // merge_size, grid.w // merge_size
        block = positions[:, span.offset : span.offset + span.length]
        block[0] = position
        block[1:] = np.indices((rows, columns)).reshape(2, -1) + position
        position += max(rows, columns)
        done = span.offset + span.length
    end = position + length - done
    positions[:, done:] = np.arange(position, end)
    return Positions(positions, end - length)


QWEN3_VL = PromptFamily(
    name="qwen3_vl",
    template_tokens=("image", "video", "vision_start", "vision_end"),
    spoken_tokens=("<tool_call>", "</tool_call>", "<think>", "</think>"),
    thought_tokens=("<think>", "</think>"),
    tools=JSON_CALLS,
    expand=expand,
    position_ids=position_ids,
)
