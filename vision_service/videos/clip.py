"""What a video is to the rest of the room, whatever file it came in, and when its frames are shown.

Times are transformers' where frames come at a steady rate: a frame's place divided by the rate
that the container names. Where they do not (variable rate, wrong header), they are the container's
presentation times, from the first frame on, and the rate is that of the whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from protos.media.limits import MAX_IMAGE_PIXELS, MAX_VIDEO_RATE, MAX_VIDEO_SECONDS, invalid_video
from protos.media.limits import video_too_large as too_large
from protos.media.videos import FrameSampling, SampledFrames, sample_indices
from vision_service.media.images import RgbArray

FIELD = "video"  # the video's name in errors
CORRUPT = "is truncated or corrupt"  # follows "the video"
# Frames of one file, a bound on the time that counting them takes: three hours at 60 a second
# have 648,000.
MAX_FRAMES = 1_000_000

_STEADY_S = 0.05  # half of the tenth of a second in which prompts tell times

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLimits:
    """What a video may cost."""

    max_pixels: int = MAX_IMAGE_PIXELS  # of a frame, before it is resized
    max_seconds: float = MAX_VIDEO_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When the N frames of a video are shown."""

    starts: Seconds  # [N], ascending, the first 0
    fps: float
    is_steady: bool  # whether `fps` alone gives the times

    @classmethod
    def of(cls, starts: Seconds, end: float, named_fps: float | None, limits: ClipLimits) -> Self:
        """Checks what a container says.

        Args:
            starts: Presentation times, seconds, ascending, the first 0.
            end: When the last frame ends, seconds.
            named_fps: The rate that the container names; None where it names none.
            limits: What is accepted.

        Raises:
            InvalidRequest: VIDEO_TOO_LARGE, too long or too many frames a second.
        """
        end = max(end, float(starts[-1]))
        if end > limits.max_seconds:
            raise too_large(FIELD, "seconds", end, limits.max_seconds, setting="max_video_seconds")
        is_steady = named_fps is not None and named_fps > 0 and _fits(starts, named_fps)
        fps = named_fps if named_fps and is_steady else len(starts) / end if end else np.inf
        if len(starts) > 1 and fps > MAX_VIDEO_RATE:
            raise invalid_video(
                FIELD, f"has {fps:.4g} frames a second, expected at most {MAX_VIDEO_RATE:.0f}"
            )
        return cls(starts=starts, fps=float(fps), is_steady=is_steady)

    def sampled(self, sampling: FrameSampling, width: int, height: int) -> SampledFrames:
        """The frames that are seen, and when; the only place where frames are chosen.

        Raises:
            InvalidRequest: INVALID_VIDEO, there is only one frame.
        """
        total = len(self.starts)
        if total < 2:
            raise invalid_video(FIELD, "has 1 frame, expected at least 2; send it as an image")
        indices = sample_indices(total, self.fps, sampling)
        if self.is_steady:
            seconds = [index / self.fps for index in indices]
        else:
            seconds = [float(self.starts[index]) for index in indices]
        return SampledFrames(tuple(indices), tuple(seconds), width, height)


class Clip(Protocol):
    """An opened video."""

    width: int  # of a frame, turned upright
    height: int
    timing: Timing

    def frames(self, indices: Sequence[int]) -> Iterator[RgbArray]:
        """The frames of these places, ascending and within the video, one by one.

        Returns:
            Upright RGB pixels, uint8 [height, width, 3].

        Raises:
            InvalidRequest: INVALID_VIDEO, one cannot be decoded, or has another size.
        """
        ...


def _fits(starts: Seconds, fps: float) -> bool:
    """Whether a steady rate tells every frame's time as well as a prompt can say it."""
    off = np.abs(starts - np.arange(len(starts)) / fps)
    return bool(off.max() <= _STEADY_S)
