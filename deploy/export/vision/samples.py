"""Images that a tower is calibrated and judged with: made here, the same every time.

Discs and bars of every size that cover each other have the statistics of photographs (Lee, Mumford
and Huang 2001, "Occlusion models for natural images"); noise gives them texture, letters and rules
stand for screens and documents.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from protos.media.images import Grid

FloatArray = npt.NDArray[np.float32]

LEAST_EXTENT, MOST_EXTENT = 0.15, 0.8  # of an image's sides, of the position table's
LEAST_LEAVES, MOST_LEAVES = 2, 200  # drawings have few things in them, photographs many
LEAST_LEAF = 8.0  # pixels across
LARGEST_LEAF = 0.7  # of the image's shorter side
MOST_GRAIN = 12.0  # deviation of the noise, in levels of a byte


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image as a tower takes it."""

    patches: FloatArray  # [P, patch_dim], normalized
    grid: Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleShape:
    """How a checkpoint cuts images, and how large those are that it was trained on."""

    channels: int
    frames: int
    side: int  # of a patch, pixels
    merge: int
    table_side: int  # of the table of positions, patches

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Reads a checkpoint's vision_config."""
        return cls(
            channels=config["in_channels"],
            frames=config["temporal_patch_size"],
            side=config["patch_size"],
            merge=config["spatial_merge_size"],
            table_side=isqrt(config["num_position_embeddings"]),
        )


def samples(shape: SampleShape, patches: int, seed: int) -> list[Sample]:
    """Draws images of several sizes.

    Args:
        shape: How to cut them.
        patches: Of all of them together, at least.
        seed: Other seeds give other images.
    """
    rng = np.random.default_rng(seed)
    made: list[Sample] = []
    while sum(sample.grid.patches for sample in made) < patches:
        extents = rng.uniform(LEAST_EXTENT, MOST_EXTENT, 2) * shape.table_side / shape.merge
        rows, columns = np.maximum(np.rint(extents), 1).astype(int).tolist()
        grid = Grid(1, rows * shape.merge, columns * shape.merge)
        image = draw(grid.h * shape.side, grid.w * shape.side, rng)
        made.append(Sample(patches=_cut(image, grid, shape), grid=grid))
    return made


def draw(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One image, uint8 [height, width, 3]."""
    image = Image.new("RGB", (width, height), _color(rng))
    pen = ImageDraw.Draw(image)
    for _ in range(int(np.exp(rng.uniform(np.log(LEAST_LEAVES), np.log(MOST_LEAVES))))):
        _leaf(pen, width, height, rng)
    for _ in range(rng.integers(0, 4)):
        _text(pen, width, height, rng)
    pixels = np.asarray(image, np.float32)
    grain = rng.normal(0, rng.uniform(0, MOST_GRAIN), pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8)


def _leaf(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    short = max(min(width, height), 2 * LEAST_LEAF)
    # Areas of natural things fall with the third power of their size.
    most, least = LEAST_LEAF**-2, (LARGEST_LEAF * short) ** -2
    size = (most - rng.random() * (most - least)) ** -0.5
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    wide, high = size * rng.uniform(0.5, 1.5, 2) / 2
    box = (x - wide, y - high, x + wide, y + high)
    kind = rng.integers(3)
    if kind == 0:
        pen.ellipse(box, fill=_color(rng))
    elif kind == 1:
        pen.rectangle(box, fill=_color(rng))
    else:
        corners = [(x + dx, y + dy) for dx, dy in rng.uniform(-size, size, (4, 2)).tolist()]
        pen.polygon(corners, fill=_color(rng))


def _text(pen: ImageDraw.ImageDraw, width: int, height: int, rng: np.random.Generator) -> None:
    letters = "".join(rng.choice(list(string.ascii_letters + string.digits + "  "), 12))
    font = ImageFont.load_default(size=float(rng.integers(10, max(12, height // 4))))
    place = rng.uniform(-0.1, 0.9) * width, rng.uniform(0, 0.9) * height
    pen.text(place, letters, fill=_color(rng), font=font)


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def _cut(image: npt.NDArray[np.uint8], grid: Grid, shape: SampleShape) -> FloatArray:
    """Patches in merge order, each of all frames alike; -1 to 1, about what processors make."""
    side, merge = shape.side, shape.merge
    scaled = (image[..., np.arange(shape.channels) % 3] / 127.5 - 1).astype(np.float32)
    blocks = scaled.reshape(grid.h // merge, merge, side, grid.w // merge, merge, side, -1)
    cut = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(grid.patches, shape.channels, 1, side**2)
    patches: FloatArray = np.repeat(cut, shape.frames, axis=2).reshape(grid.patches, -1)
    return patches
