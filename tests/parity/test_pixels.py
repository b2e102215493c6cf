"""Patches against transformers' default (torchvision) image processor, in float32."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from protos.media.images import ImageSettings, PixelRange, grid_thw
from tests.support import bundles, torchvision_schemas
from tests.support.checkpoint_names import NAMES
from vision_service.media.images import ImageLimits, checked_header, decode_rgb
from vision_service.media.preprocess import to_patches

torchvision_schemas.install()
from transformers import AutoImageProcessor  # noqa: E402

# Both sides do the same float32 operations on the same uint8 values, in the same order.
TOLERANCE = 2e-7

SIDE = st.one_of(
    st.integers(1, 700),
    st.integers(1, 40).map(lambda n: 16 * n),  # every other one is a rounding tie of factor 32
)


class Pair:
    """Our settings and transformers' processor of one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self.ours = ImageSettings.from_file(checkpoint / "preprocessor_config.json")
        self.theirs: Any = AutoImageProcessor.from_pretrained(checkpoint)

    def check(
        self,
        image: Image.Image,
        pixels: npt.NDArray[np.uint8],
        areas: PixelRange | None = None,
    ) -> None:
        size = {}
        if areas is not None:
            edges = {"shortest_edge": areas.min_pixels, "longest_edge": areas.max_pixels}
            size = {"size": edges}
        expected = self.theirs(images=[image], return_tensors="pt", **size)
        height, width = pixels.shape[:2]
        ours = self.ours if areas is None else self.ours.within(areas)
        grid = grid_thw(height, width, ours)
        patches = to_patches(pixels, grid, self.ours)
        assert tuple(grid) == tuple(expected["image_grid_thw"][0].tolist())
        reference = expected["pixel_values"].numpy()
        assert patches.shape == reference.shape
        assert np.abs(patches - reference).max() <= TOLERANCE


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(bundles.checkpoint(request.param))


@pytest.fixture(scope="module")
def published() -> Pair:
    return Pair(bundles.checkpoint("tied"))


def image_of(height: int, width: int, seed: int) -> Image.Image:
    """Half noise, half smooth, so that both sharp and clipped bicubic values occur."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ramp = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    pixels[: height // 2] = ramp
    return Image.fromarray(pixels)


@given(height=SIDE, width=SIDE, seed=st.integers(0, 2**32 - 1))
@example(height=400, width=300, seed=0)
@example(height=48, width=80, seed=1)  # both sides are ties
@example(height=3, width=600, seed=2)  # an aspect ratio of exactly 200
@example(height=600, width=3, seed=3)
@example(height=1, width=1, seed=4)
@example(height=1, width=200, seed=5)
@example(height=256, width=256, seed=6)  # needs no resizing
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_patches_equal_those_of_the_checkpoints_processor(
    pair: Pair, height: int, width: int, seed: int
) -> None:
    if max(height, width) <= 200 * min(height, width):
        image = image_of(height, width, seed)
        pair.check(image, np.asarray(image))


@pytest.mark.parametrize("size", [(2000, 3000), (4100, 4200), (3, 600), (1024, 768)])
def test_large_and_extreme_images_keep_exact_patches(
    published: Pair, size: tuple[int, int]
) -> None:
    image = image_of(*size, seed=7)
    published.check(image, np.asarray(image))


@pytest.mark.parametrize("size", [(800, 1000), (1000, 41), (60, 90), (256, 256)])
@pytest.mark.parametrize(
    "areas", [(1, 1024), (1024, 50_176), (65_536, 262_144), (50_176, 50_176), (1 << 20, 1 << 21)]
)
def test_areas_of_one_image_give_the_patches_of_transformers_size(
    published: Pair, size: tuple[int, int], areas: tuple[int, int]
) -> None:
    image = image_of(*size, seed=11)
    published.check(image, np.asarray(image), PixelRange(*areas))


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def rgba() -> Image.Image:
    alpha = np.random.default_rng(3).integers(0, 256, (64, 96, 1), dtype=np.uint8)
    return Image.fromarray(np.concatenate([np.asarray(image_of(64, 96, 9)), alpha], axis=2))


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("PNG", image_of(64, 96, 1), {}),
        ("JPEG", image_of(64, 96, 1), {"quality": 80}),
        ("JPEG", image_of(64, 96, 1).convert("CMYK"), {}),
        ("JPEG", image_of(64, 96, 1).convert("L"), {}),
        ("WEBP", rgba(), {}),
        ("GIF", image_of(64, 96, 1), {}),
        ("BMP", image_of(64, 96, 1), {}),
        ("PNG", rgba(), {}),
        ("PNG", rgba().convert("LA"), {}),
        ("PNG", image_of(64, 96, 1).convert("P"), {"transparency": 7}),
        ("GIF", image_of(64, 96, 1).convert("P"), {"transparency": 7}),
        ("PNG", image_of(64, 96, 1).convert("1"), {}),
        ("PNG", image_of(64, 96, 1), {"transparency": (0, 0, 0)}),
    ],
)
def test_a_decoded_file_gives_the_patches_transformers_makes_of_it(
    published: Pair, name: str, image: Image.Image, options: dict[str, Any]
) -> None:
    data = encoded(image, name, **options)
    pixels = decode_rgb(data, checked_header(data, ImageLimits()))
    published.check(Image.open(io.BytesIO(data)), pixels)
