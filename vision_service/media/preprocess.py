"""RGB pixels to patches, exactly as the checkpoint's image processor does it.

transformers' default processor for Qwen3-VL runs on torchvision; the product has none, and a
replica whose tower needs no torch loads none for this either. The arithmetic is reproduced
operation by operation: antialiased bicubic resize of uint8 values, then
`(x - mean / rescale) / (std / rescale)` in float32, then patches in merge order.
"""

import numpy as np

from kernels import resize
from protos.media.images import Grid, ImageSettings
from vision_service.jobs import FloatArray
from vision_service.media.images import RgbArray


def patches_shape(grid: Grid, settings: ImageSettings) -> tuple[int, int]:
    """Shape [P, D] of the patches of a still image."""
    return grid.patches, 3 * settings.temporal_patch_size * settings.patch_size**2


def to_patches(
    pixels: RgbArray, grid: Grid, settings: ImageSettings, made: FloatArray | None = None
) -> FloatArray:
    """Resizes, normalizes and cuts one image.

    Args:
        pixels: RGB, uint8 [height, width, 3].
        grid: Its patch grid, as `grid_thw` gives it for its size.
        settings: The checkpoint's image settings.
        made: Where the patches go, float32 of `patches_shape`; None: new memory.

    Returns:
        Patches, float32 [P, D], D ordered (channel, temporal, row, column), each merge group
        contiguous.

    Source: transformers Qwen2VLImageProcessor._preprocess (torchvision); parity in
    tests/parity/test_pixels.py.
    """
    height, width = grid.h * settings.patch_size, grid.w * settings.patch_size
    if pixels.shape[:2] != (height, width):
        pixels = _resized(pixels, height, width)
    if made is None:
        made = np.empty(patches_shape(grid, settings), np.float32)
    _cut(pixels, settings, _levels(settings), made)
    return made


def _resized(pixels: RgbArray, height: int, width: int) -> RgbArray:
    if resize.is_available():
        return resize.bicubic(pixels, height, width)
    # Imported here because only machines that our compiled code does not run on need it.
    import torch

    # NOTE: the copy makes the tensor writable and, being channels-first, takes torch's same
    # resize kernel as the reference.
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()[None])
    made = torch.nn.functional.interpolate(
        image, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return np.asarray(made[0].permute(1, 2, 0).numpy())


def _levels(settings: ImageSettings) -> FloatArray:
    """What each of the 256 values of a byte becomes in each channel, float32 [3, 256]."""
    # Folding the rescaling into mean and std rounds otherwise than rescaling first would.
    scale = 1.0 / settings.rescale_factor
    mean = np.array(settings.image_mean, np.float32) * scale
    std = np.array(settings.image_std, np.float32) * scale
    levels: FloatArray = (np.arange(256, dtype=np.float32) - mean[:, None]) / std[:, None]
    return levels


def _cut(pixels: RgbArray, settings: ImageSettings, levels: FloatArray, made: FloatArray) -> None:
    height, width, channels = pixels.shape
    patch, merge, frames = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    rows, columns = height // patch, width // patch
    blocks = pixels.reshape(
        rows // merge, merge, patch, columns // merge, merge, patch, channels
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    parts = made.reshape(rows * columns, channels, frames, patch * patch)
    for channel in range(channels):
        of_channel = blocks[:, :, :, :, channel].reshape(rows * columns, 1, patch * patch)
        # A still image fills every frame of the temporal patch.
        parts[:, channel] = levels[channel][of_channel]
