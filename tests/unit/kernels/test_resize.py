"""Resized bytes equal torch's, for any sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import resize

pytestmark = pytest.mark.skipif(
    not resize.is_available(), reason="the compiled code does not run on this processor"
)

SIDES = st.integers(2, 400)  # torch fails on some images that are one pixel wide


def by_torch(pixels: resize.RgbArray, height: int, width: int) -> resize.RgbArray:
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()[None])
    made = torch.nn.functional.interpolate(
        image, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return np.asarray(made[0].permute(1, 2, 0).numpy())


def noise(height: int, width: int, seed: int) -> resize.RgbArray:
    # Mostly the ends of the range, where sums have to be clamped.
    values = np.random.default_rng(seed).integers(-128, 384, (height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_every_byte_is_torchs(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    pixels = noise(height, width, seed)
    made = resize.bicubic(pixels, rows, columns)
    np.testing.assert_array_equal(made, by_torch(pixels, rows, columns))


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(3024, 4032, 768, 1024), (37, 5000, 32, 2496), (480, 640, 480, 640), (96, 64, 960, 640)],
)
def test_sizes_of_real_images(height: int, width: int, rows: int, columns: int) -> None:
    pixels = noise(height, width, 1)
    made = resize.bicubic(pixels, rows, columns)
    np.testing.assert_array_equal(made, by_torch(pixels, rows, columns))


def test_a_view_of_another_image_is_read_as_it_is_seen() -> None:
    pixels = noise(60, 80, 2)[::2, ::-1]
    made = resize.bicubic(pixels, 64, 32)
    np.testing.assert_array_equal(made, by_torch(np.ascontiguousarray(pixels), 64, 32))
