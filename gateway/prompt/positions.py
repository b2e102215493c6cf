"""MRoPE position ids of a spliced prompt, in NumPy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.prompt.splice import VisualSpan
from protos.media.images import Grid


class Positions(NamedTuple):
    """Position ids, int32, shape [3, S], rows temporal, height, width; and the decode delta."""

    ids: npt.NDArray[np.int32]
    delta: int  # a cache length plus this is the next decode position; often negative


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
