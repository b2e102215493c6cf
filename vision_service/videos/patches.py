"""Frames into patches, exactly as the checkpoint's video processor does it."""

from collections.abc import Iterable

from protos.media.images import Grid
from protos.media.videos import TEMPORAL_PATCH, VideoSettings
from vision_service.jobs import FloatArray
from vision_service.media.images import RgbArray
from vision_service.media.preprocess import to_patches


def frames_to_patches(
    frames: Iterable[RgbArray], grid: Grid, settings: VideoSettings, made: FloatArray
) -> None:
    """Resizes, normalizes and cuts frames, of which one is held at a time.

    Args:
        frames: RGB, uint8 [height, width, 3], 2 * t of them.
        grid: What they are resized to.
        settings: The checkpoint's video settings.
        made: Where the patches go, float32 [P, D], D ordered (channel, temporal, row, column),
            each merge group contiguous, temporal patches in order.

    Source: transformers Qwen3VLVideoProcessor._preprocess (torchvision); parity in
    tests/parity/test_videos.py.
    """
    still = Grid(1, grid.h, grid.w)
    patch = settings.frames.patch_size
    parts = made.reshape(grid.t, still.patches, 3, TEMPORAL_PATCH, patch * patch)
    for index, pixels in enumerate(frames):
        # A still image fills every frame of its temporal patch: one of them is taken.
        cut = to_patches(pixels, still, settings.frames)
        moment = cut.reshape(still.patches, 3, TEMPORAL_PATCH, patch * patch)[:, :, 0]
        parts[index // TEMPORAL_PATCH, :, :, index % TEMPORAL_PATCH] = moment
