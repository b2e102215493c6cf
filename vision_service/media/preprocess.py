"""RGB pixels to patches, exactly as the checkpoint's image processor does it, with torch alone.

transformers' default processor for Qwen3-VL runs on torchvision; the product has none. Its
arithmetic is reproduced operation by operation: antialiased bicubic resize of uint8 values,
then `(x - mean / rescale) / (std / rescale)` in float32, then patches in merge order.
"""

import torch

from protos.media.images import Grid, ImageSettings
from vision_service.jobs import FloatArray
from vision_service.media.images import RgbArray


def to_patches(pixels: RgbArray, grid: Grid, settings: ImageSettings) -> FloatArray:
    """Resizes, normalizes and cuts one image.

    Args:
        pixels: RGB, uint8 [height, width, 3].
        grid: Its patch grid, as `grid_thw` gives it for its size.
        settings: The checkpoint's image settings.

    Returns:
        Patches, float32 [P, D], D ordered (channel, temporal, row, column), each merge group
        contiguous.

    Source: transformers Qwen2VLImageProcessor._preprocess (torchvision); parity in
    tests/parity/test_pixels.py.
    """
    target = grid.h * settings.patch_size, grid.w * settings.patch_size
    # NOTE: the copy makes the tensor writable and, being channels-first, takes torch's same
    # resize kernel as the reference.
    image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()[None])
    if target != pixels.shape[:2]:
        image = torch.nn.functional.interpolate(
            image, size=target, mode="bicubic", antialias=True, align_corners=False
        )
    return _cut(_normalize(image, settings), settings).numpy()


def _normalize(image: torch.Tensor, settings: ImageSettings) -> torch.Tensor:
    # Folding the rescaling into mean and std rounds otherwise than rescaling first would.
    scale = 1.0 / settings.rescale_factor
    mean = (torch.tensor(settings.image_mean) * scale).view(-1, 1, 1)
    std = (torch.tensor(settings.image_std) * scale).view(-1, 1, 1)
    return image.to(torch.float32).sub_(mean).div_(std)


def _cut(image: torch.Tensor, settings: ImageSettings) -> torch.Tensor:
    _, channels, height, width = image.shape
    patch, merge, frames = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    rows, columns = height // patch, width // patch
    blocks = image.reshape(
        channels, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(1, 4, 2, 5, 0, 3, 6)
    # A still image fills every frame of the temporal patch.
    repeated = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1)
    return repeated.reshape(rows * columns, channels * frames * patch**2)
