"""What gateway and vision tier must agree on about videos: settings, sampling, times, grids.

Frames are chosen in one place, by the vision tier's `SampleVideo`, with `sample_indices`; the
gateway plans with what it answered, and has exactly those frames encoded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from protos.bundle.manifest import BundleError, VisionDims
from protos.media import images
from protos.media.images import Grid, ImageSettings, PixelRange
from protos.media.limits import MAX_ASPECT_RATIO, invalid_video
from protos.wire.errors import InvalidRequest

SETTINGS_NAME = "processor/video_preprocessor_config.json"
FORMATS = ("MP4", "WEBM", "MKV", "GIF", "WEBP")
MOST_SAMPLED_FRAMES = 2048  # that any request may ask for
TEMPORAL_PATCH = 2  # frames of one temporal patch, in every published checkpoint

# Class defaults of transformers' Qwen3VLVideoProcessor, which published files rely on.
_FPS, _MIN_FRAMES, _MAX_FRAMES, _MAX_FRAME_TOKENS = 2, 4, 768, 768
# Switches of it that this release has in one position only.
_FIXED_STEPS: Mapping[str, Any] = {"do_sample_frames": True, "num_frames": None}


class FrameSampling(NamedTuple):
    """How frames are chosen: `frame_count` of them, or `fps` a second within the two bounds."""

    fps: float = _FPS
    min_frames: int = _MIN_FRAMES
    max_frames: int = _MAX_FRAMES
    frame_count: int | None = None


class SampledFrames(NamedTuple):
    """Frames chosen of one video, in order of time; F of them, not yet made even.

    Attributes:
        indices: Place of each in the video, from 0 on; in a list of frames, its place there.
        seconds: When each is shown, from the video's beginning on.
        width: Pixels of a frame, turned upright.
        height: The same.
    """

    indices: tuple[int, ...]
    seconds: tuple[float, ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """The checkpoint's video preprocessing.

    Attributes:
        frames: Its image-like part; `min_pixels` and `max_pixels` are areas of all frames together.
        sampling: How frames are chosen where a request says nothing.
        max_frame_tokens: Most tokens of a frame's area; None for no such bound.
    """

    frames: ImageSettings
    sampling: FrameSampling
    max_frame_tokens: int | None

    @classmethod
    def from_file(cls, file: Path) -> Self:
        """Reads a bundle's video_preprocessor_config.json.

        Raises:
            BundleError: the file is missing or not JSON; see `from_mapping`.
        """
        return cls.from_mapping(images.json_object(file, SETTINGS_NAME))

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """Reads the settings from parsed JSON.

        Raises:
            BundleError: a key is missing or malformed, named; or a processing step is switched to
                something this release does not do.

        **Source**: transformers Qwen3VLVideoProcessor; of its areas `size` alone counts.
        """
        for key, fixed in _FIXED_STEPS.items():
            if raw.get(key, fixed) != fixed:
                raise BundleError(f"{SETTINGS_NAME}: {key} is {raw[key]!r}, supported is {fixed!r}")
        shared = {key: value for key, value in raw.items() if not key.endswith("_pixels")}
        try:
            frames = ImageSettings.from_mapping(shared)
        except BundleError as error:
            raise BundleError(str(error).replace(images.SETTINGS_NAME, SETTINGS_NAME)) from error
        if frames.temporal_patch_size != TEMPORAL_PATCH:
            raise BundleError(
                f"{SETTINGS_NAME}: temporal_patch_size is {frames.temporal_patch_size}, supported"
                f" is {TEMPORAL_PATCH}"
            )
        sampling = FrameSampling(
            fps=_number(raw, "fps", _FPS),
            min_frames=int(_number(raw, "min_frames", _MIN_FRAMES)),
            max_frames=int(_number(raw, "max_frames", _MAX_FRAMES)),
        )
        capped = bool(raw.get("cap_pixels_per_frame"))
        most = int(_number(raw, "max_video_tokens", _MAX_FRAME_TOKENS))
        return cls(frames=frames, sampling=sampling, max_frame_tokens=most if capped else None)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """Undoes `dataclasses.asdict`, for JSON."""
        return cls(
            frames=ImageSettings(**plain["frames"]),
            sampling=FrameSampling(*plain["sampling"]),
            max_frame_tokens=plain["max_frame_tokens"],
        )

    def check_against(self, vision: VisionDims) -> None:
        """Compares patch and merge sizes with the tower's.

        Raises:
            BundleError: they differ; the bundle mixes two checkpoints.
        """
        try:
            self.frames.check_against(vision)
        except BundleError as error:
            raise BundleError(str(error).replace(images.SETTINGS_NAME, SETTINGS_NAME)) from error

    def areas(self, frames: int) -> PixelRange:
        """Least and most pixels of so many frames together.

        **Source**: transformers Qwen3VLVideoProcessor.resize (cap_pixels_per_frame).
        """
        least, most = self.frames.min_pixels, self.frames.max_pixels
        if self.max_frame_tokens is not None:
            of_frame = min(self.max_frame_tokens * self.frames.factor**2, most // frames)
            most = max(of_frame, int(least * 1.05)) * frames
        return PixelRange(least, most)


def sample_indices(total: int, fps: float, sampling: FrameSampling) -> list[int]:
    """Which frames of a video are seen.

    Args:
        total: Its frames; >= 1.
        fps: Its frames a second.
        sampling: What is wanted.

    Returns:
        Ascending indices; they repeat where more are wanted than there are.

    **Source**: transformers Qwen3VLVideoProcessor.sample_frames; parity in
    tests/parity/test_videos.py.
    """
    count = sampling.frame_count
    if count is None:
        count = int(total / fps * sampling.fps)
        count = min(max(count, sampling.min_frames), sampling.max_frames, total)
    return [int(index) for index in np.linspace(0, total - 1, count).round()]


def paired(frames: Sequence[Any]) -> list[Any]:
    """Frames, or what belongs to each, with the last one repeated where they are odd."""
    return [*frames, *[*frames[-1:]] * (len(frames) % TEMPORAL_PATCH)]


def pair_seconds(seconds: Sequence[float]) -> list[float]:
    """The time of each temporal patch: the mean of its two frames'.

    **Source**: transformers Qwen3VLProcessor._calculate_timestamps.
    """
    times = paired(seconds)
    return [(first + last) / 2 for first, last in zip(times[::2], times[1::2], strict=True)]


def video_grid(
    frames: int, height: int, width: int, settings: ImageSettings, areas: PixelRange, *, field: str
) -> Grid:
    """The patch grid of a video of so many frames of this size, before merging.

    Args:
        frames: Frames that are seen, before they are made even; >= 2.
        height: Pixels of one frame.
        width: The same.
        settings: Of which patch and merge size count.
        areas: Least and most pixels of all frames together.
        field: The video's place in the request, for errors.

    Raises:
        InvalidRequest: INVALID_VIDEO, fewer than two frames, or too long and thin.

    **Source**: transformers video_processing_qwen3_vl.smart_resize; parity in
    tests/parity/test_videos.py.
    """
    if frames < TEMPORAL_PATCH:
        raise invalid_video(
            field, f"has {frames} frame, expected at least {TEMPORAL_PATCH}; one is an image"
        )
    factor = settings.factor
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise _too_thin(field, width, height)
    rows, columns = round(height / factor), round(width / factor)
    total = round(frames / TEMPORAL_PATCH) * TEMPORAL_PATCH * rows * columns * factor**2
    if total > areas.max_pixels:
        beta = math.sqrt(frames * height * width / areas.max_pixels)
        rows = max(1, math.floor(height / beta / factor))
        columns = max(1, math.floor(width / beta / factor))
    elif total < areas.min_pixels:
        beta = math.sqrt(areas.min_pixels / (frames * height * width))
        rows, columns = math.ceil(height * beta / factor), math.ceil(width * beta / factor)
    merge = settings.merge_size
    return Grid(math.ceil(frames / TEMPORAL_PATCH), rows * merge, columns * merge)


def _too_thin(field: str, width: int, height: int) -> InvalidRequest:
    return invalid_video(
        field,
        f"has frames of {width} x {height} pixels, expected an aspect ratio of at most"
        f" {MAX_ASPECT_RATIO}",
    )


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    value = default if raw.get(key) is None else raw[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise BundleError(f"{SETTINGS_NAME}: {key} is {value!r}, expected a number above 0")
    return float(value)
