"""Qwen3-VL: its markers, and its interleaved MRoPE positions, in NumPy."""

from collections.abc import Sequence

import numpy as np

from gateway.media.images import PlannedImage
from gateway.prompt.families.family import Positions, PromptFamily
from gateway.prompt.splice import SplicedPrompt, VisualSpan, splice
from gateway.tools.json_calls import JSON_CALLS
from protos.bundle.manifest import SpecialTokens
from protos.media.images import Grid


def expand(
    ids: Sequence[int], images: Sequence[PlannedImage], special: SpecialTokens
) -> SplicedPrompt:
    """Placeholders for markers: an image's marker is also its placeholder; see `splice`.

    Args:
        ids: Token ids of the rendered prompt.
        images: In prompt order.
        special: The bundle's special tokens.

    Raises:
        InvalidRequest: the chat template left out an image.
        Unsupported: VIDEO_NOT_SUPPORTED, the prompt asks for a video.
    """
    return splice(
        ids,
        [image.token_count for image in images],
        [image.digest for image in images],
        image_id=special.image,
        video_id=special.video,
    )


def position_ids(
    length: int, spans: Sequence[VisualSpan], grids: Sequence[Grid], merge_size: int
) -> Positions:
    """Three-axis rotary positions of a prompt with images.

    Text advances all three axes together. An image stands on one grid of rows and columns
    (after merging) that begins where the text before it ended; text after it goes on at that
    start plus the grid's longer side.

    Args:
        length: Prompt length S after expansion, >= 1.
        spans: The placeholders of each image, ascending.
        grids: Patch grid of each image before merging, t = 1, in the order of `spans`.
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
    positions[:, done:] = np.arange(position, position + length - done)
    return Positions(positions, int(positions.max()) + 1 - length)


QWEN3_VL = PromptFamily(
    name="qwen3_vl",
    template_tokens=("image", "video", "vision_start", "vision_end"),
    spoken_tokens=("<tool_call>", "</tool_call>", "<think>", "</think>"),
    thought_tokens=("<think>", "</think>"),
    tools=JSON_CALLS,
    expand=expand,
    position_ids=position_ids,
)
