"""Videos as clients send them: what may be asked of one, and the plan that its sampling allows.

Files are never opened here: the vision tier says which of their frames are seen, and when. Lists
of frames are planned from the headers of their images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Self

from blake3 import blake3

from gateway.media.images import TierLimits, image_bytes
from gateway.media.sizing import MAX_PIXELS_FIELD
from protos.media import limits as defaults
from protos.media.formats import read_header
from protos.media.images import Grid, PixelRange
from protos.media.limits import check_bytes, invalid_video, video_too_large
from protos.media.videos import (
    TEMPORAL_PATCH,
    FrameSampling,
    SampledFrames,
    VideoSettings,
    pair_seconds,
    paired,
    video_grid,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFrames:
    """Some temporal patches of a video, encoded by one call: a file's indices, or images."""

    field: str
    file: bytes
    indices: tuple[int, ...]  # F, even
    images: tuple[bytes, ...]  # F, even
    grid: Grid  # t of it
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVideo:
    """One video of a request, planned but not decoded; T temporal patches.

    Attributes:
        seconds: The time of each temporal patch, length T.
        digests: Names of their features, length T.
        patch_tokens: Placeholders of each temporal patch.
        pieces: How they are encoded, in order.
    """

    seconds: tuple[float, ...]
    digests: tuple[bytes, ...]
    grid: Grid
    patch_tokens: int
    pieces: tuple[PlannedFrames, ...]


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
    if len(sources) > limits.max_request_videos:
        raise InvalidRequest(
            f"messages hold {len(sources)} videos, expected at most {limits.max_request_videos}",
            reason=Reason.VIDEO_TOO_LARGE,
            param="messages",
        )
    for source in sources:
        field = source.field
        size = len(source.file) + sum(len(frame) for frame in source.frames)
        if size > limits.max_bytes:
            raise video_too_large(field, "bytes", size, limits.max_bytes, setting="max_video_mib")
        if size == 0:
            raise invalid_video(field, "is an empty video")
        count = source.sizing.frame_count or len(source.frames)
        if count > limits.most_frames:
            raise video_too_large(
                field, "frames", count, limits.most_frames, setting="max_video_frames"
            )
        if source.frames:
            _check_seconds(source, limits)


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


def plan_video(
    source: VideoSource,
    sampled: SampledFrames | None,
    settings: VideoSettings,
    *,
    limits: VideoLimits,
    digest_key: bytes,
) -> PlannedVideo:
    """Plans the placeholders of one video.

    Args:
        source: The video, checked by `check_videos`.
        sampled: What the vision tier chose of a file; None for a list of frames.
        settings: The checkpoint's video settings.
        limits: What it may be.
        digest_key: 32 bytes; videos have equal digests only under the same key.

    Raises:
        InvalidRequest: INVALID_VIDEO, INVALID_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_MEDIA, naming
            the field.
    """
    seen = sampled or _given_frames(source, settings, limits)
    grid = _planned_grid(source, seen, settings, limits)
    indices = paired(seen.indices)
    pairs = list(zip(indices[::2], indices[1::2], strict=True))
    return PlannedVideo(
        seconds=tuple(pair_seconds(seen.seconds)),
        digests=tuple(_digests(source, pairs, grid, digest_key)),
        grid=grid,
        patch_tokens=grid.tokens(settings.frames.merge_size) // grid.t,
        pieces=tuple(_pieces(source, pairs, grid, settings, limits)),
    )


def _given_frames(
    source: VideoSource, settings: VideoSettings, limits: VideoLimits
) -> SampledFrames:
    """All frames of a list; their times are given, or follow from their rate."""
    sizes = set()
    for data in source.frames:
        check_bytes(data, field=source.field, most=limits.max_bytes)
        header = read_header(data, field=source.field, max_pixels=limits.max_frame_pixels)
        sizes.add((header.width, header.height))
    if len(sizes) > 1:
        raise invalid_video(source.field, "has frames of different sizes")
    ((width, height),) = sizes
    places = tuple(range(len(source.frames)))
    fps = source.sizing.fps or settings.sampling.fps
    seconds = source.seconds or tuple(place / fps for place in places)
    return SampledFrames(places, seconds, width, height)


def _planned_grid(
    source: VideoSource, seen: SampledFrames, settings: VideoSettings, limits: VideoLimits
) -> Grid:
    """The grid within what the request, the checkpoint and the server allow.

    The least area gives way to the largest, from whichever side either comes.
    """
    frames, sizing = len(seen.indices), source.sizing
    least, most = settings.areas(max(1, frames))
    pixels_of_patch = settings.frames.patch_size**2
    if sizing.total_pixels is not None:
        most = sizing.total_pixels
    most = min(most, (sizing.max_pixels or most) * frames)
    most = min(most, limits.max_piece_patches * pixels_of_patch * frames)
    if sizing.min_pixels is not None:
        least = sizing.min_pixels * frames
    while True:
        areas = PixelRange(min(least, most), most)
        grid = video_grid(
            frames, seen.height, seen.width, settings.frames, areas, field=source.field
        )
        tokens = grid.tokens(settings.frames.merge_size)
        fits = grid.h * grid.w <= limits.max_piece_patches and tokens <= limits.max_tokens
        if fits or grid.h * grid.w == settings.frames.merge_size**2:
            return grid
        # Areas count an odd last frame once, tokens twice; and sides are rounded.
        most = max(1, min(most - 1, most * limits.max_tokens // tokens))


def _pieces(
    source: VideoSource,
    pairs: Sequence[tuple[int, int]],
    grid: Grid,
    settings: VideoSettings,
    limits: VideoLimits,
) -> Iterable[PlannedFrames]:
    step = max(1, limits.max_piece_patches // (grid.h * grid.w))
    for start in range(0, grid.t, step):
        part = [index for pair in pairs[start : start + step] for index in pair]
        piece = Grid(len(part) // TEMPORAL_PATCH, grid.h, grid.w)
        yield PlannedFrames(
            field=source.field,
            file=source.file,
            indices=tuple(part) if source.file else (),
            images=tuple(source.frames[index] for index in part) if source.frames else (),
            grid=piece,
            token_count=piece.tokens(settings.frames.merge_size),
        )


def _digests(
    source: VideoSource, pairs: Sequence[tuple[int, int]], grid: Grid, key: bytes
) -> Iterable[bytes]:
    """Names each temporal patch's features: they follow from two frames and their size."""
    size = b"".join(side.to_bytes(4, "little") for side in (grid.h, grid.w))
    if source.file:
        file = blake3(source.file, key=key).digest()
        names = [file + b"".join(index.to_bytes(4, "little") for index in pair) for pair in pairs]
    else:
        each = [blake3(frame, key=key).digest() for frame in source.frames]
        names = [each[first] + each[last] for first, last in pairs]
    for name in names:
        yield blake3(b"video" + name + size, key=key).digest()
