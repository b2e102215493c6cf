"""Messages about videos: what is checked before a reader is asked."""

from typing import Any

import pytest

from protos.media.images import Grid
from protos.media.videos import FrameSampling, SampledFrames
from protos.tandem.v1 import vision_pb2
from protos.wire.errors import InvalidRequest
from vision_service.jobs import EncodedFrames, VideoFile
from vision_service.video_requests import (
    VideoSource,
    frames_from_proto,
    sampled_to_proto,
    sampling_from_proto,
)

GRID = Grid(2, 4, 4)


def test_a_file_with_indices_and_a_list_of_images_are_told_apart() -> None:
    file = vision_pb2.VideoFrames(file=b"x", frame_indices=[0, 3, 3, 9])
    expected = VideoSource(VideoFile(data=b"x", indices=(0, 3, 3, 9)), GRID)
    assert frames_from_proto(file, GRID) == expected
    images = vision_pb2.VideoFrames(images=[b"a", b"b", b"c", b"c"])
    source, _ = frames_from_proto(images, GRID)
    assert source == EncodedFrames(images=(b"a", b"b", b"c", b"c"))


@pytest.mark.parametrize(
    ("fields", "grid", "param"),
    [
        ({"file": b"x", "frame_indices": [0, 1, 2, 3]}, None, "expected_grid_thw"),
        ({}, GRID, "video"),
        ({"file": b"x", "images": [b"y"] * 4}, GRID, "video"),
        ({"file": b"x", "frame_indices": [0, 1, 2]}, GRID, "video"),
        ({"images": [b"y"] * 5}, GRID, "video"),
        ({"file": b"x", "frame_indices": [0, 2, 1, 3]}, GRID, "video.frame_indices"),
        ({"file": b"x", "frame_indices": [-1, 0, 1, 2]}, GRID, "video.frame_indices"),
    ],
)
def test_malformed_frames_are_refused_by_field(
    fields: dict[str, Any], grid: Grid | None, param: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        frames_from_proto(vision_pb2.VideoFrames(**fields), grid)
    assert caught.value.param == param


GOOD: dict[str, Any] = {"file": b"x", "fps": 2.0, "min_frames": 4, "max_frames": 768}


def test_sampling_is_read_with_and_without_a_count() -> None:
    sampling = sampling_from_proto(vision_pb2.SampleVideoRequest(**GOOD))
    assert sampling == FrameSampling(2.0, 4, 768, None)
    sampling = sampling_from_proto(vision_pb2.SampleVideoRequest(**GOOD, frame_count=9))
    assert sampling.frame_count == 9


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"fps": 0.0}, "fps"),
        ({"fps": float("inf")}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"max_frames": 2049}, "max_frames"),
        ({"min_frames": 0}, "min_frames"),
        ({"min_frames": 769}, "min_frames"),
        ({"frame_count": 0}, "frame_count"),
    ],
)
def test_sampling_out_of_range_is_refused_by_field(change: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sampling_from_proto(vision_pb2.SampleVideoRequest(**{**GOOD, **change}))
    assert caught.value.param == param


def test_chosen_frames_keep_their_order_and_times() -> None:
    message = sampled_to_proto(SampledFrames((0, 5), (0.0, 0.2), 64, 48))
    assert [(frame.index, frame.seconds) for frame in message.frames] == [(0, 0.0), (5, 0.2)]
    assert (message.width, message.height) == (64, 48)
