"""Pictures as the model gets them: drawn at any size, resized as the processor resizes."""

import math
import random

import numpy as np
import torch
from torch.nn.functional import interpolate

from protos.media.images import ImageSettings, smart_resize
from tests.demo_model.drawing import Finish, Picture, Pixels, Scene, render
from tests.demo_model.scenes import BORDER, CELL, Frame

SHORTEST_EDGE = 28 * CELL * CELL  # least area of a picture after resizing, in pixels
LONGEST_EDGE = 40 * CELL * CELL  # largest area of a picture after resizing, in pixels
SMALLEST_SIDE, LARGEST_SIDE = 64, 512  # pixels of a drawn picture

SETTINGS = ImageSettings(
    patch_size=CELL // 2,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=SHORTEST_EDGE,
    max_pixels=LONGEST_EDGE,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)

Grid = tuple[int, int]  # rows and columns of merged tokens


def resized(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels after the processor; see `protos.media.images.smart_resize`."""
    return smart_resize(height, width, SETTINGS)


def random_size(rng: random.Random, largest_aspect: float = 4.0) -> tuple[int, int]:
    """Width and height of a picture to draw, 64 to 512 pixels a side."""
    area = math.exp(rng.uniform(math.log(96**2), math.log(420**2)))
    spread = math.log(largest_aspect)
    aspect = math.exp(max(-spread, min(spread, rng.gauss(0, 0.45))))
    width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
    return tuple(round(min(LARGEST_SIDE, max(SMALLEST_SIDE, s))) for s in (width, height))  # type: ignore[return-value]


def random_grid(rng: random.Random) -> Grid:
    """Rows and columns of merged tokens of a random picture."""
    width, height = random_size(rng)
    seen_height, seen_width = resized(height, width)
    return seen_height // CELL, seen_width // CELL


def frame_for(rng: random.Random, grid: Grid) -> Frame:
    """A random size to draw at that the processor resizes to the given grid.

    Half of the frames let middles lie on the borders of cells, where nobody can tell for sure
    which cell holds them: harder than what is examined.
    """
    seen_height, seen_width = grid[0] * CELL, grid[1] * CELL
    border = rng.choice((0.0, BORDER))
    for _ in range(40):
        scale = math.exp(rng.uniform(math.log(0.5), math.log(2.7)))
        width = round(seen_width * scale * rng.uniform(0.9, 1.15))
        height = round(seen_height * scale * rng.uniform(0.9, 1.15))
        drawable = SMALLEST_SIDE <= min(width, height) and max(width, height) <= LARGEST_SIDE
        if drawable and resized(height, width) == (seen_height, seen_width):
            return Frame(width, height, seen_width, seen_height, border)
    return Frame(seen_width, seen_height, seen_width, seen_height, border)


def resize(pixels: Pixels, height: int, width: int) -> torch.Tensor:
    """Resizes RGB pixels [H, W, 3] as transformers' picture processor does; uint8."""
    tensor = torch.from_numpy(np.array(pixels))
    if tensor.shape[:2] == (height, width):
        return tensor
    planes = tensor.permute(2, 0, 1)[None]
    planes = interpolate(
        planes, (height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return planes[0].permute(1, 2, 0).contiguous()


def draw(rng: random.Random, scene: Scene, frame: Frame) -> tuple[Picture, torch.Tensor]:
    """Draws a scene; the picture as drawn and as seen, uint8 [H, W, 3]."""
    pixels = render(scene, frame.width, frame.height, Finish.random(rng))
    return Picture(scene, pixels), resize(pixels, frame.seen_height, frame.seen_width)
