"""Between the messages about videos and the plain data of jobs.py."""

import math
from itertools import pairwise
from typing import NamedTuple

from protos.media.images import Grid
from protos.media.videos import (
    MOST_SAMPLED_FRAMES,
    TEMPORAL_PATCH,
    FrameSampling,
    SampledFrames,
)
from protos.tandem.v1 import vision_pb2
from protos.wire.errors import InvalidRequest, Reason
from protos.wire.sampling import check_range
from vision_service.jobs import EncodedFrames, VideoFile


class VideoSource(NamedTuple):
    """Frames of a video, and the grid of their temporal patches."""

    source: VideoFile | EncodedFrames
    grid: Grid


def frames_from_proto(message: vision_pb2.VideoFrames, grid: Grid | None) -> VideoSource:
    """Frames to encode.

    Args:
        message: Which ones.
        grid: What they are to become, if the request says it.

    Raises:
        InvalidRequest: no grid, or other frames than it implies.
    """
    if grid is None:
        raise InvalidRequest(
            "expected_grid_thw is unset, expected it beside video", param="expected_grid_thw"
        )
    if bool(message.file) == bool(message.images):
        raise InvalidRequest("video.file or video.images must be set, and not both", param="video")
    indices = tuple(message.frame_indices)
    count = len(indices) if message.file else len(message.images)
    if count != grid.t * TEMPORAL_PATCH:
        raise InvalidRequest(
            f"video has {count} frames, expected_grid_thw.t implies {grid.t * TEMPORAL_PATCH}",
            reason=Reason.SHAPE_MISMATCH,
            param="video",
        )
    if not message.file:
        return VideoSource(EncodedFrames(images=tuple(message.images)), grid)
    if indices[0] < 0 or any(b < a for a, b in pairwise(indices)):
        raise InvalidRequest(
            "video.frame_indices must begin at 0 or later and not descend",
            param="video.frame_indices",
        )
    return VideoSource(VideoFile(data=message.file, indices=indices), grid)


def sampling_from_proto(request: vision_pb2.SampleVideoRequest) -> FrameSampling:
    """How frames are to be chosen.

    Raises:
        InvalidRequest: a number is out of range.
    """
    if not (math.isfinite(request.fps) and request.fps > 0):
        raise InvalidRequest(f"fps is {request.fps}, expected a number above 0", param="fps")
    count = request.frame_count if request.HasField("frame_count") else None
    check_range("max_frames", request.max_frames, 1, MOST_SAMPLED_FRAMES)
    check_range("min_frames", request.min_frames, 1, request.max_frames)
    if count is not None:
        check_range("frame_count", count, 1, MOST_SAMPLED_FRAMES)
    return FrameSampling(request.fps, request.min_frames, request.max_frames, count)


def sampled_to_proto(sampled: SampledFrames) -> vision_pb2.SampledVideo:
    """The frames that were chosen."""
    frames = zip(sampled.indices, sampled.seconds, strict=True)
    return vision_pb2.SampledVideo(
        frames=[vision_pb2.SampledFrame(index=index, seconds=seconds) for index, seconds in frames],
        width=sampled.width,
        height=sampled.height,
    )
