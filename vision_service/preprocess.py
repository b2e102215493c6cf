"""RGB pixels to patches, exactly as the checkpoint's picture processor does it, with torch alone.

transformers' default processor for Qwen3-VL runs on torchvision; the product has none. Its
arithmetic is reproduced operation by operation: antialiased bicubic resize of uint8 values,
then `(x - mean / rescale) / (std / rescale)` in float32, then patches in merge order.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from protos.bundle import BundleError
from protos.errors import InvalidRequest, Reason
from vision_service.decoding import RgbArray
from vision_service.jobs import FloatArray, Grid

SETTINGS_FILE = "processor/preprocessor_config.json"
MAX_ASPECT_RATIO = 200  # transformers' smart_resize refuses more

# Steps the processor always takes. A checkpoint may spell them out, never turn them off.
_FIXED_STEPS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True}
_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC
_RESCALE = 1 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSettings:
    """The checkpoint's own picture settings; none has a default of ours.

    `min_pixels` and `max_pixels` bound the area after resizing; `mean` and `std` are per channel
    on the [0, 1] scale.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rescale: float

    @property
    def factor(self) -> int:
        """Both sides of a resized picture are multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_dim(self) -> int:
        """Values of one patch, D."""
        return len(self.mean) * self.temporal_patch_size * self.patch_size**2

    @classmethod
    def from_bundle(cls, bundle: Path) -> Self:
        """Reads the bundle's `processor/preprocessor_config.json`.

        Raises:
            BundleError: the file or a key is missing, or asks for another kind of processing.
        """
        try:
            raw = json.loads((bundle / SETTINGS_FILE).read_text())
        except (OSError, ValueError) as error:
            raise BundleError(f"{SETTINGS_FILE} is missing or not valid JSON") from error
        return cls.from_json(raw)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Reads the settings of a parsed `preprocessor_config.json`.

        Raises:
            BundleError: a key is missing, or asks for another kind of processing.
        """
        _refuse_other_steps(raw)
        # As in transformers, the older min_pixels / max_pixels win over size.
        size = raw.get("size") or {}
        mean, std = _required(raw, "image_mean"), _required(raw, "image_std")
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise BundleError(f"{SETTINGS_FILE}: image_mean and image_std must have 3 channels")
        return cls(
            patch_size=_positive(raw, "patch_size"),
            temporal_patch_size=_positive(raw, "temporal_patch_size"),
            merge_size=_positive(raw, "merge_size"),
            min_pixels=_area(raw, size, "min_pixels", "shortest_edge"),
            max_pixels=_area(raw, size, "max_pixels", "longest_edge"),
            mean=tuple(float(value) for value in mean),
            std=tuple(float(value) for value in std),
            rescale=float(raw.get("rescale_factor", _RESCALE)),
        )


def smart_resize(height: int, width: int, settings: PictureSettings) -> tuple[int, int]:
    """The size in pixels a picture is resized to: multiples of `factor`, area within bounds.

    Returns:
        Height and width.

    Raises:
        InvalidRequest: INVALID_IMAGE, the aspect ratio is above 200.

    Source: transformers qwen2_vl.image_processing_qwen2_vl.smart_resize; parity in
    tests/parity/test_pixels.py.
    """
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise InvalidRequest(
            f"picture is {width} x {height}, expected an aspect ratio of at most"
            f" {MAX_ASPECT_RATIO}",
            reason=Reason.INVALID_IMAGE,
            param="picture",
        )
    factor = settings.factor
    # Python's round(): ties go to the even multiple, as in the reference.
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > settings.max_pixels:
        shrink = math.sqrt((height * width) / settings.max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < settings.min_pixels:
        grow = math.sqrt(settings.min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def picture_grid(height: int, width: int, settings: PictureSettings) -> Grid:
    """The patch grid of a picture of this size.

    Raises:
        InvalidRequest: see `smart_resize`.
    """
    rows, columns = smart_resize(height, width, settings)
    return Grid(1, rows // settings.patch_size, columns // settings.patch_size)


def to_patches(pixels: RgbArray, settings: PictureSettings) -> tuple[FloatArray, Grid]:
    """Resizes, normalizes and cuts one picture.

    Args:
        pixels: RGB, uint8 [height, width, 3].

    Returns:
        Patches, float32 [P, D], D ordered (channel, temporal, row, column), each merge group
        contiguous; and their grid.

    Raises:
        InvalidRequest: see `smart_resize`.

    Source: transformers Qwen2VLImageProcessor._preprocess (torchvision); parity in
    tests/parity/test_pixels.py.
    """
    height, width = pixels.shape[:2]
    target = smart_resize(height, width, settings)
    # NOTE: the copy makes the tensor writable and, being channels-first, takes torch's same
    # resize kernel as the reference.
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))[None])
    if target != (height, width):
        image = torch.nn.functional.interpolate(
            image, size=target, mode="bicubic", antialias=True, align_corners=False
        )
    patches = _cut(_normalize(image, settings), settings)
    return patches.numpy(), picture_grid(height, width, settings)


def _normalize(image: torch.Tensor, settings: PictureSettings) -> torch.Tensor:
    # Folding the rescaling into mean and std rounds otherwise than rescaling first would.
    scale = 1.0 / settings.rescale
    mean = (torch.tensor(settings.mean) * scale).view(-1, 1, 1)
    std = (torch.tensor(settings.std) * scale).view(-1, 1, 1)
    return image.to(torch.float32).sub_(mean).div_(std)


def _cut(image: torch.Tensor, settings: PictureSettings) -> torch.Tensor:
    _, channels, height, width = image.shape
    patch, merge, frames = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    rows, columns = height // patch, width // patch
    blocks = image.reshape(
        channels, rows // merge, merge, patch, columns // merge, merge, patch
    ).permute(1, 4, 2, 5, 0, 3, 6)
    # A still picture fills every frame of the temporal patch.
    repeated = blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1)
    return repeated.reshape(rows * columns, settings.patch_dim)


def _refuse_other_steps(raw: dict[str, Any]) -> None:
    for key, value in _FIXED_STEPS.items():
        if raw.get(key, value) != value:
            raise BundleError(f"{SETTINGS_FILE}: {key} must be {value}, got {raw[key]!r}")
    if raw.get("resample", _BICUBIC) != _BICUBIC:
        raise BundleError(
            f"{SETTINGS_FILE}: resample must be {_BICUBIC} (bicubic), got {raw['resample']!r}"
        )


def _required(raw: dict[str, Any], key: str) -> Any:
    if raw.get(key) is None:
        raise BundleError(f"{SETTINGS_FILE} lacks {key}")
    return raw[key]


def _positive(raw: dict[str, Any], key: str) -> int:
    value = _required(raw, key)
    if not isinstance(value, int) or value < 1:
        raise BundleError(f"{SETTINGS_FILE}: {key} must be a positive integer, got {value!r}")
    return value


def _area(raw: dict[str, Any], size: dict[str, Any], old_key: str, key: str) -> int:
    if raw.get(old_key) is not None:
        return _positive(raw, old_key)
    if size.get(key) is None:
        raise BundleError(f"{SETTINGS_FILE} lacks size.{key}")
    return _positive(size, key)
