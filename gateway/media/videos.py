"""Videos as clients send them, and what may be asked of one.

Files are never opened in the gateway: the vision tier says which of their frames are seen, and
when. Lists of frames are planned from the headers of their images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self

from gateway.media.images import TierLimits, image_bytes
from gateway.media.sizing import MAX_PIXELS_FIELD
from gateway.media.sources import ByteLimit
from protos.media import limits as defaults
from protos.media.limits import invalid_video, video_too_large
from protos.media.videos import (
    TEMPORAL_PATCH,
    FrameSampling,
    VideoSettings,
)
from protos.wire.errors import InvalidRequest, Reason, error_for
from protos.wire.sampling import check_range

# Patches of one Encode call: a long video is encoded in pieces, so that neither its pixels nor its
# features are ever held whole, and others' images get their turn between two of them.
MAX_PIECE_PATCHES = 2048

_IMAGE_REASONS = {
    Reason.INVALID_IMAGE: Reason.INVALID_VIDEO,
    Reason.IMAGE_TOO_LARGE: Reason.VIDEO_TOO_LARGE,
}
_FRAME_JPEGS = "data:video/jpeg;base64,"  # vLLM's clients: JPEG frames, joined by commas


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSizing:
    """What a request asks for one video; None as nobody asked. Areas are pixels after resizing.

    Attributes:
        fps: Frames seen a second; of a list of frames: their rate.
        min_frames: Fewest frames seen.
        max_frames: Most frames seen.
        frame_count: Frames seen, instead of all three above.
        min_pixels: Least area of one frame.
        max_pixels: Largest area of one frame.
        total_pixels: Largest area of all frames together.
    """

    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    frame_count: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None

    def check(self, *, field: str) -> None:
        """Checks every number; `field` is the video's place in the request.

        Raises:
            InvalidRequest: one is out of range, or the smallest above the largest.
        """
        if self.fps is not None:
            check_range(f"{field}.fps", self.fps, 0, defaults.MAX_VIDEO_RATE, open_low=True)
        for name, least in (("min_frames", 1), ("max_frames", 2), ("frame_count", 2)):
            self._check(field, name, least)
        for name in ("min_pixels", "max_pixels", "total_pixels"):
            self._check(field, name, 1)
        for low, high in (("min_frames", "max_frames"), ("min_pixels", "max_pixels")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None:
                check_range(f"{field}.{low}", least, 1, most)

    def _check(self, field: str, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None:
            check_range(f"{field}.{name}", value, least, MAX_PIXELS_FIELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """What the videos of one request may be; a video above `max_tokens` is resized to it."""

    max_bytes: int = defaults.MAX_VIDEO_BYTES
    max_seconds: float = defaults.MAX_VIDEO_SECONDS
    max_frames: int = defaults.MAX_VIDEO_FRAMES  # that are seen
    max_tokens: int = defaults.MAX_VIDEO_TOKENS
    max_frame_pixels: int = defaults.MAX_IMAGE_PIXELS  # of a frame that a client sends
    max_piece_patches: int = MAX_PIECE_PATCHES
    max_request_videos: int = defaults.MAX_REQUEST_VIDEOS

    def under(self, tiers: Iterable[TierLimits]) -> Self:
        """The lower of these limits and those of every vision tier."""
        limits = self
        for tier in tiers:
            limits = replace(
                limits,
                max_bytes=min(limits.max_bytes, tier.max_video_bytes or limits.max_bytes),
                max_seconds=min(limits.max_seconds, tier.max_video_seconds or limits.max_seconds),
                max_frame_pixels=min(limits.max_frame_pixels, tier.max_image_pixels),
                max_piece_patches=min(limits.max_piece_patches, tier.max_image_patches),
            )
        return limits

    @property
    def file(self) -> ByteLimit:
        """What one file may have."""
        return ByteLimit(most=self.max_bytes, error=_too_many_bytes)

    def check_count(self, videos: int) -> None:
        """Compares a request's number of videos with the limit.

        Raises:
            InvalidRequest: VIDEO_TOO_LARGE.
        """
        if videos > self.max_request_videos:
            raise InvalidRequest(
                f"messages hold {videos} videos, expected at most {self.max_request_videos}",
                reason=Reason.VIDEO_TOO_LARGE,
                param="messages",
            )

    @property
    def most_frames(self) -> int:
        """Most frames seen: each temporal patch has at least one token."""
        return min(self.max_frames, self.max_tokens * TEMPORAL_PATCH)


class VideoSource(NamedTuple):
    """One video of a request: its place there, and either a file or frames.

    Attributes:
        field: For errors.
        file: Empty where frames are given.
        frames: Image files, in order of time.
        seconds: When each frame is shown; empty where `sizing.fps` says it.
        sizing: What is asked of it.
    """

    field: str
    file: bytes = b""
    frames: tuple[bytes, ...] = ()
    seconds: tuple[float, ...] = ()
    sizing: VideoSizing = VideoSizing()


def video_data(url: str, *, field: str) -> tuple[bytes, tuple[bytes, ...]]:
    """The file behind a video's URL, or the frames in vLLM's `data:video/jpeg;base64,A,B,C`.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, no data: URL; INVALID_VIDEO, not base64 or empty.
    """
    try:
        if url[: len(_FRAME_JPEGS)].lower() != _FRAME_JPEGS:
            return image_bytes(url, field=field), ()
        frames = url[len(_FRAME_JPEGS) :].split(",", defaults.MAX_VIDEO_FRAMES)
        return b"", tuple(image_bytes(_FRAME_JPEGS + frame, field=field) for frame in frames)
    except InvalidRequest as error:
        reason = _IMAGE_REASONS.get(error.reason, error.reason)
        raise error_for(reason, error.message, param=error.param) from error


def check_videos(sources: Sequence[VideoSource], limits: VideoLimits) -> None:
    """Checks numbers and sizes, before the vision tier is asked anything.

    Raises:
        InvalidRequest: VIDEO_TOO_LARGE or INVALID_VIDEO, naming the field.
    """
    limits.check_count(len(sources))
    for source in sources:
        field = source.field
        size = len(source.file) + sum(len(frame) for frame in source.frames)
        limits.file.check(size, field=field)
        if size == 0:
            raise invalid_video(field, "is an empty video")
        count = source.sizing.frame_count or len(source.frames)
        if count > limits.most_frames:
            raise video_too_large(
                field, "frames", count, limits.most_frames, setting="max_video_frames"
            )
        if source.frames:
            _check_seconds(source, limits)


def _too_many_bytes(field: str, size: int, most: int) -> InvalidRequest:
    return video_too_large(field, "bytes", size, most, setting="max_video_mib")


def _check_seconds(source: VideoSource, limits: VideoLimits) -> None:
    field, seconds = f"{source.field}.timestamps", source.seconds
    if not seconds:
        return
    if len(seconds) != len(source.frames):
        raise InvalidRequest(
            f"{field} has {len(seconds)} entries, expected one for each of the"
            f" {len(source.frames)} frames",
            param=field,
        )
    for value in seconds:
        check_range(field, value, 0, limits.max_seconds)
    if any(later < earlier for earlier, later in pairwise(seconds)):
        raise InvalidRequest(f"{field} descends, expected frames in order of time", param=field)


def sampling_of(sizing: VideoSizing, settings: VideoSettings, limits: VideoLimits) -> FrameSampling:
    """How frames of a file are to be chosen: the checkpoint's way where a request says nothing."""
    usual = settings.sampling
    most = min(sizing.max_frames or usual.max_frames, limits.most_frames)
    return FrameSampling(
        fps=usual.fps if sizing.fps is None else sizing.fps,
        min_frames=min(sizing.min_frames or usual.min_frames, most),
        max_frames=most,
        frame_count=sizing.frame_count,
    )
