"""The images of `tandem verify`'s reference obey the checkpoint's limits as transformers does."""

import numpy as np
import pytest

from deploy.export.comparison.reference import patches

SETTINGS = {
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "size": {"shortest_edge": 65536, "longest_edge": 16777216},
}


@pytest.mark.parametrize(
    ("limits", "grid"),
    [
        ({}, (1, 20, 14)),
        ({"min_pixels": 1024}, (1, 12, 8)),
        ({"min_pixels": 1024, "max_pixels": 4096, "size": None}, (1, 4, 2)),
    ],
)
def test_limits_in_pixels_win_over_size(limits: dict[str, object], grid: tuple[int, ...]) -> None:
    image = np.zeros((180, 120, 3), np.uint8)
    values, found = patches(image, {**SETTINGS, **limits})
    assert found == grid
    assert values.shape == (grid[1] * grid[2], 3 * 2 * 16 * 16)
