"""The tower against `model.visual`, in float32: embeddings and every DeepStack level."""

import numpy as np
import pytest

from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from tests.support import bundles
from tests.support.checkpoint_names import NAMES
from tests.support.oracle import Float32Array, oracle
from vision_service.jobs import Patches
from vision_service.towers.torch_tower import TorchTower

TOLERANCE = 1e-5  # relative to the largest value of a level

# Rows and columns in merge groups: square, wide, tall, and a single token.
SHAPES = ((4, 6), (1, 9), (7, 2), (1, 1), (5, 5))


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tower(name: str) -> TorchTower:
    return TorchTower.load(Bundle.open(bundles.bundle(name)))


@pytest.fixture(scope="module")
def images(name: str) -> list[Patches]:
    vision = oracle(bundles.checkpoint(name)).model.config.vision_config
    merge = vision.spatial_merge_size
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    random = np.random.default_rng(0)
    grids = [Grid(1, rows * merge, columns * merge) for rows, columns in SHAPES]
    return [Patches(random.uniform(-1, 1, (g.patches, width)).astype(np.float32), g) for g in grids]


def reference(name: str, pixels: Float32Array, grid: Grid) -> Float32Array:
    features = oracle(bundles.checkpoint(name)).features(pixels, np.array([grid]))
    return np.stack([features.embeddings, *features.deepstack])


def assert_close(ours: Float32Array, theirs: Float32Array) -> None:
    assert ours.shape == theirs.shape
    for level, (mine, wanted) in enumerate(zip(ours, theirs, strict=True)):
        scale = np.abs(wanted).max()
        assert scale > 0
        assert np.abs(mine - wanted).max() <= TOLERANCE * scale, f"level {level}"


def test_every_level_equals_the_whole_models_tower(
    name: str, tower: TorchTower, images: list[Patches]
) -> None:
    for pixels, grid in images:
        (ours,) = tower.encode([Patches(pixels, grid)])
        assert_close(ours, reference(name, pixels, grid))


def test_levels_follow_the_checkpoints_deepstack_indexes(
    name: str, tower: TorchTower, images: list[Patches]
) -> None:
    indexes = oracle(bundles.checkpoint(name)).model.config.vision_config.deepstack_visual_indexes
    assert len(tower.encode(images[:1])[0]) == 1 + len(indexes)


def test_images_encoded_together_equal_images_encoded_alone(
    tower: TorchTower, images: list[Patches]
) -> None:
    together = tower.encode(images)
    for ours, (pixels, grid) in zip(together, images, strict=True):
        (alone,) = tower.encode([Patches(pixels, grid)])
        assert_close(ours, alone)


def test_a_image_is_not_influenced_by_its_batch_mates(
    tower: TorchTower, images: list[Patches]
) -> None:
    one, other = images[0], images[4]
    first, _ = tower.encode([one, other])
    second, _ = tower.encode([one, other._replace(pixel_values=other.pixel_values * -3)])
    assert_close(first, second)
