"""The plan of a video: its grid, the times and names of its temporal patches, and its pieces."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blake3 import blake3

from gateway.media.videos import VideoLimits, VideoSource
from protos.media.formats import read_header
from protos.media.images import Grid, PixelRange
from protos.media.limits import check_bytes, invalid_video
from protos.media.videos import (
    TEMPORAL_PATCH,
    SampledFrames,
    VideoSettings,
    pair_seconds,
    paired,
    video_grid,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFrames:
    """Some temporal patches of a video, encoded by one call: a file's indices, or images."""

    field: str
    file: bytes
    indices: tuple[int, ...]  # F, even
    images: tuple[bytes, ...]  # F, even
    grid: Grid  # t of it
    token_count: int
    digest: bytes  # of its temporal patches' digests, 32 bytes


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
    digests = tuple(_digests(source, pairs, grid, digest_key))
    return PlannedVideo(
        seconds=tuple(pair_seconds(seen.seconds)),
        digests=digests,
        grid=grid,
        patch_tokens=grid.tokens(settings.frames.merge_size) // grid.t,
        pieces=tuple(_pieces(source, pairs, digests, grid, settings, limits)),
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
    digests: Sequence[bytes],
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
            digest=blake3(b"".join(digests[start : start + step])).digest(),
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
