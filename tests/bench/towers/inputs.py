"""The images that all towers of a comparison are given: drawn once, the same every time.

Each lies in a file with all that depends on its grid, since peers' environments cannot compute it.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deploy.export.vision.samples import SampleShape, draw, samples
from protos.media.grid_inputs import GridSettings, grid_inputs
from protos.media.images import Grid
from tests.bench.drivers.towers import FloatArray, Given, path_of, write

# The nearest to a photograph's sides.
GRIDS = {432: Grid(1, 18, 24), 1024: Grid(1, 32, 32), 3072: Grid(1, 48, 64), 4096: Grid(1, 64, 64)}
SEED = 20  # of the measured images; those that a peer is calibrated with have another
CALIBRATION_SEED = 21


def write_measured(tower: Path, sizes: list[int], folder: Path) -> None:
    """Writes an image of each size, patches, in the folder.

    Raises:
        KeyError: a size that no grid is known of.
    """
    shape, settings = _read(tower)
    for patches in sizes:
        grid = GRIDS[patches]
        drawn = draw(grid.h * shape.side, grid.w * shape.side, np.random.default_rng(SEED))
        write(path_of(folder, patches), _given(cut(drawn, grid, shape), grid, settings))


def write_calibration(tower: Path, patches: int, folder: Path) -> None:
    """Writes other images, of so many patches in all, by their numbers."""
    shape, settings = _read(tower)
    for number, sample in enumerate(samples(shape, patches, CALIBRATION_SEED)):
        write(path_of(folder, number), _given(sample.patches, sample.grid, settings))


def cut(image: npt.NDArray[np.uint8], grid: Grid, shape: SampleShape) -> FloatArray:
    """Patches of an image in merge order, float32 [P, patch_dim] from -1 to 1, frames alike."""
    side, merge = shape.side, shape.merge
    scaled = (image / 127.5 - 1).astype(np.float32)
    blocks = scaled.reshape(grid.h // merge, merge, side, grid.w // merge, merge, side, -1)
    parts = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(grid.patches, shape.channels, 1, side**2)
    patches: FloatArray = np.repeat(parts, shape.frames, axis=2).reshape(grid.patches, -1)
    return patches


def _given(pixels: FloatArray, grid: Grid, settings: GridSettings) -> Given:
    feeds = grid_inputs([grid], settings).feeds()
    return Given(pixels=pixels, grid=(grid.t, grid.h, grid.w), feeds=feeds)


def _read(tower: Path) -> tuple[SampleShape, GridSettings]:
    config = json.loads((tower / "vision" / "config.json").read_text())
    return SampleShape.from_config(config), GridSettings.from_config(config)
