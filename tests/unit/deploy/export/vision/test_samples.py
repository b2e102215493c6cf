"""Images to calibrate with."""

import numpy as np

from deploy.export.vision import samples as images
from deploy.export.vision.samples import SampleShape, samples
from protos.media.images import ImageSettings
from vision_service.media.preprocess import to_patches

SHAPE = SampleShape(channels=3, frames=2, side=16, merge=2, table_side=16)


def test_the_same_seed_gives_the_same_images_and_another_gives_others() -> None:
    first, again, other = (samples(SHAPE, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0].patches, again[0].patches)
    assert first[0].grid != other[0].grid or (first[0].patches != other[0].patches).any()


def test_there_are_enough_patches_of_images_within_the_table() -> None:
    made = samples(SHAPE, 500, 3)
    assert sum(one.grid.patches for one in made) >= 500
    for one in made:
        assert one.grid.h % SHAPE.merge == one.grid.w % SHAPE.merge == 0
        assert max(one.grid.h, one.grid.w) <= SHAPE.table_side
        assert one.patches.shape == (one.grid.patches, 3 * 2 * 16**2)
        assert np.abs(one.patches).max() <= 1


def test_patches_are_those_of_the_vision_tier() -> None:
    (made,) = samples(SHAPE, 1, 4)
    rng = np.random.default_rng(4)
    rng.uniform(images.LEAST_EXTENT, images.MOST_EXTENT, 2)  # the sides
    image = images.draw(made.grid.h * SHAPE.side, made.grid.w * SHAPE.side, rng)
    half = (0.5, 0.5, 0.5)
    settings = ImageSettings(
        patch_size=SHAPE.side,
        temporal_patch_size=SHAPE.frames,
        merge_size=SHAPE.merge,
        min_pixels=1,
        max_pixels=10**9,
        image_mean=half,
        image_std=half,
        rescale_factor=1 / 255,
    )
    wanted = to_patches(image, made.grid, settings)
    np.testing.assert_allclose(made.patches, wanted, atol=1e-6)
