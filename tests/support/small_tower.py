"""A tower of a few small blocks with random weights, all its graphs beside it: made in a second."""

import functools
import tempfile
from pathlib import Path

from tests.support import full_size_tower

CONFIG = {
    **full_size_tower.CONFIG,
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_heads": 2,
    "patch_size": 4,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
    "out_hidden_size": 48,
}
# Operators of ours, in the order of a run: the patches' embedding, then what a block has and what
# a merger has. The fast form's MLP is one.
BLOCK_STEPS, MERGER_STEPS = {"exact": 5, "fast": 4}, 2
STEPS = 1 + 3 * BLOCK_STEPS["exact"] + 3 * MERGER_STEPS  # at most


@functools.cache
def bundle() -> Path:
    """A folder with `vision/`, one for the process."""
    return full_size_tower.build(Path(tempfile.mkdtemp(prefix="tandem-small-tower-")), CONFIG)
