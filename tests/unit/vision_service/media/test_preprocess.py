"""Sizes, patch order and settings; the pixel values are compared in tests/parity."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.media.images import ImageSettings, grid_thw, smart_resize
from protos.wire.errors import InvalidRequest, Reason
from vision_service.media.preprocess import to_patches

CONFIG: dict[str, Any] = {
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
SETTINGS = ImageSettings.from_mapping(CONFIG)
SMALL = ImageSettings.from_mapping({**CONFIG, "size": {"shortest_edge": 1, "longest_edge": 2**20}})

sides = st.integers(1, 6000)


@given(sides, sides)
def test_resized_sides_are_multiples_and_the_area_stays_in_bounds(height: int, width: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    rows, columns = smart_resize(height, width, SETTINGS)
    assert rows % 32 == columns % 32 == 0
    assert rows * columns >= SETTINGS.min_pixels
    # Sides of at least one factor win over the largest area only for extremely thin images.
    assert rows * columns <= SETTINGS.max_pixels or 32 in (rows, columns)


@given(sides, sides)
def test_swapping_the_sides_swaps_the_result(height: int, width: int) -> None:
    if max(height, width) <= 200 * min(height, width):
        swapped = smart_resize(width, height, SETTINGS)
        assert smart_resize(height, width, SETTINGS) == swapped[::-1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((400, 300), (384, 288)),  # 12.5 and 9.375 factors: the tie goes to the even 12
        ((432, 304), (448, 320)),  # 13.5 goes to 14, 9.5 to 10
        ((300, 400), (288, 384)),
        ((1, 1), (256, 256)),
        ((5000, 5000), (4096, 4096)),
        ((48, 9600), (64, 9600)),  # 1.5 goes to 2
    ],
)
def test_known_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(*size, SETTINGS) == expected


def test_an_aspect_ratio_above_200_is_refused() -> None:
    assert smart_resize(10, 2000, SETTINGS)
    with pytest.raises(InvalidRequest) as caught:
        smart_resize(10, 2001, SETTINGS)
    assert caught.value.reason is Reason.INVALID_IMAGE


def test_a_400_x_300_image_has_432_patches() -> None:
    grid = grid_thw(300, 400, SETTINGS)
    assert (grid.t, grid.h, grid.w) == (1, 18, 24)
    assert (grid.patches, grid.tokens(2)) == (432, 108)


def test_patches_of_one_merge_group_are_contiguous_and_frames_repeat() -> None:
    # Each patch of a 64 x 96 image holds its own number, row by row.
    numbers = np.arange(24, dtype=np.uint8).reshape(4, 6)
    pixels = np.repeat(np.repeat(numbers, 16, axis=0), 16, axis=1)[..., None].repeat(3, axis=2)
    grid = grid_thw(64, 96, SMALL)
    patches = to_patches(pixels, grid, SMALL)
    assert (grid.h, grid.w) == (4, 6)
    assert patches.dtype == np.float32
    values = (patches * 0.5 + 0.5) * 255
    assert np.allclose(values, values[:, :1], atol=1e-4)
    assert values[:8, 0].round().tolist() == [0, 1, 6, 7, 2, 3, 8, 9]
    per_channel = patches.reshape(24, 3, 2, 256)
    assert np.array_equal(per_channel[:, :, 0], per_channel[:, :, 1])
