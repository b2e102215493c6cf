"""What gateway and vision tier must agree on about images: sizes, grids, and the settings of both.

The gateway plans placeholders from an image's size alone; the vision tier resizes the pixels.
Both use these functions, so that a plan never disagrees with its features.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from protos.bundle.manifest import BundleError, VisionDims
from protos.media.limits import check_sides

SETTINGS_NAME = "processor/preprocessor_config.json"

# Steps every Qwen3-VL processor takes. Published files leave them out; a file that says
# otherwise belongs to a processor this release does not reproduce.
_FIXED_STEPS: Mapping[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "do_convert_rgb": True,
    "resample": 3,  # bicubic
}
_RESCALE_FACTOR = 1 / 255


class PixelRange(NamedTuple):
    """Areas in pixels that an image is resized to lie within; 1 <= min_pixels <= max_pixels."""

    min_pixels: int
    max_pixels: int


class Grid(NamedTuple):
    """Patches of one image before spatial merging; a still image has t = 1."""

    t: int
    h: int
    w: int

    @property
    def patches(self) -> int:
        """Patches in all, P."""
        return self.t * self.h * self.w

    def tokens(self, merge_size: int) -> int:
        """Placeholder tokens N: one per merge group of patches."""
        return self.patches // merge_size**2

    def __str__(self) -> str:
        return f"{self.t}x{self.h}x{self.w}"


def json_object(file: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a bundle.

    Args:
        file: Where it is.
        name: What errors call it.

    Raises:
        BundleError: the file is missing, not JSON, or holds something else.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"the bundle lacks {name}") from error
    except ValueError as error:
        raise BundleError(f"{name} is not valid JSON") from error
    if not isinstance(raw, dict):
        raise BundleError(f"{name} is not a JSON object")
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """The checkpoint's image preprocessing; `min_pixels` and `max_pixels` are areas."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    rescale_factor: float

    @property
    def factor(self) -> int:
        """Pixels of one placeholder's side; resized sides are multiples of it."""
        return self.patch_size * self.merge_size

    def within(self, areas: PixelRange) -> Self:
        """These settings with other areas, as transformers' `size` of one call sets them."""
        return replace(self, min_pixels=areas.min_pixels, max_pixels=areas.max_pixels)

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Reads a bundle's preprocessor_config.json.

        Raises:
            BundleError: the file is missing or not JSON; see `from_mapping`.
        """
        return cls.from_mapping(json_object(file, SETTINGS_NAME))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """Reads the settings from parsed JSON; class defaults are never used.

        Raises:
            BundleError: a key is missing or malformed, named; or a processing step is
                switched to something this release does not do.
        """
        for key, fixed in _FIXED_STEPS.items():
            if raw.get(key) is not None and raw[key] != fixed:
                raise BundleError(f"{SETTINGS_NAME}: {key} is {raw[key]!r}, supported is {fixed!r}")
        smallest, largest = _areas(raw)
        rescale = raw.get("rescale_factor")
        return cls(
            patch_size=_positive(raw, "patch_size"),
            temporal_patch_size=_positive(raw, "temporal_patch_size"),
            merge_size=_positive(raw, "merge_size"),
            min_pixels=smallest,
            max_pixels=largest,
            image_mean=_channels(raw, "image_mean"),
            image_std=_channels(raw, "image_std"),
            rescale_factor=_RESCALE_FACTOR if rescale is None else _number(raw, "rescale_factor"),
        )

    def check_against(self, vision: VisionDims) -> None:
        """Compares patch and merge sizes with the tower's.

        Raises:
            BundleError: they differ; the bundle mixes two checkpoints.
        """
        pairs = (
            ("patch_size", self.patch_size, vision.patch_size),
            ("temporal_patch_size", self.temporal_patch_size, vision.temporal_patch_size),
            ("merge_size", self.merge_size, vision.spatial_merge_size),
        )
        for name, ours, theirs in pairs:
            if ours != theirs:
                raise BundleError(f"{SETTINGS_NAME}: {name} is {ours}, the tower has {theirs}")


def smart_resize(
    height: int, width: int, settings: ImageSettings, *, field: str = "image"
) -> tuple[int, int]:
    """The size an image is resized to: multiples of `settings.factor` of a bounded area.

    Args:
        height: Pixels, after EXIF orientation.
        width: Pixels, after EXIF orientation.
        settings: The checkpoint's settings.
        field: Name used in errors.

    Returns:
        Height and width in pixels.

    Raises:
        InvalidRequest: INVALID_IMAGE, a side is 0 or the sides' ratio is above 200.

    **Source**: transformers Qwen2VLImageProcessor's smart_resize, Python's round half to even
    included; parity in tests/parity/test_prompt_sizes.py.
    """
    check_sides(width, height, field=field)
    factor = settings.factor
    rounded = round(height / factor) * factor, round(width / factor) * factor
    if rounded[0] * rounded[1] > settings.max_pixels:
        beta = math.sqrt((height * width) / settings.max_pixels)
        return (
            max(factor, math.floor(height / beta / factor) * factor),
            max(factor, math.floor(width / beta / factor) * factor),
        )
    if rounded[0] * rounded[1] < settings.min_pixels:
        beta = math.sqrt(settings.min_pixels / (height * width))
        return (
            math.ceil(height * beta / factor) * factor,
            math.ceil(width * beta / factor) * factor,
        )
    return rounded


def grid_thw(height: int, width: int, settings: ImageSettings, *, field: str = "image") -> Grid:
    """The patch grid of a still image of this size, before merging.

    Raises:
        InvalidRequest: see `smart_resize`.
    """
    resized_height, resized_width = smart_resize(height, width, settings, field=field)
    return Grid(1, resized_height // settings.patch_size, resized_width // settings.patch_size)


def _areas(raw: Mapping[str, Any]) -> tuple[int, int]:
    """Least and most pixels.

    The names are of edges, the values are areas. Older files and many fine-tunes have them as
    min_pixels and max_pixels, beside `size` or instead of it; transformers lets those win.

    **Source**: transformers Qwen2VLImageProcessor.__init__ (5.23) and Qwen2VLImageProcessorFast
    (4.57); parity in tests/parity/test_saved_processors.py.
    """
    smallest = _area(raw, "min_pixels", "shortest_edge")
    largest = _area(raw, "max_pixels", "longest_edge")
    if smallest > largest:
        raise BundleError(
            f"{SETTINGS_NAME}: the smallest area {smallest} is above the largest {largest}"
        )
    return smallest, largest


def _area(raw: Mapping[str, Any], key: str, edge: str) -> int:
    if raw.get(key) is not None:
        return _positive(raw, key)
    size = _required(raw, "size", "")
    if not isinstance(size, Mapping):
        raise BundleError(f"{SETTINGS_NAME}: size is not an object")
    return _positive(size, edge, prefix="size.")


def _required(raw: Mapping[str, Any], key: str, prefix: str) -> Any:
    value = raw.get(key)
    if value is None:
        raise BundleError(f"{SETTINGS_NAME} lacks {prefix}{key}")
    return value


def _positive(raw: Mapping[str, Any], key: str, *, prefix: str = "") -> int:
    value = _required(raw, key, prefix)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BundleError(f"{SETTINGS_NAME}: {prefix}{key} is {value!r}, expected an integer >= 1")
    return value


def _number(raw: Mapping[str, Any], key: str) -> float:
    value = _required(raw, key, "")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise BundleError(f"{SETTINGS_NAME}: {key} is {value!r}, expected a finite number")
    return float(value)


def _channels(raw: Mapping[str, Any], key: str) -> tuple[float, float, float]:
    values = _required(raw, key, "")
    if not isinstance(values, list) or len(values) != 3:
        raise BundleError(f"{SETTINGS_NAME}: {key} is {values!r}, expected three numbers")
    red, green, blue = (_number({key: value}, key) for value in values)
    if key == "image_std" and 0.0 in (red, green, blue):
        raise BundleError(f"{SETTINGS_NAME}: {key} holds a zero")
    return red, green, blue
