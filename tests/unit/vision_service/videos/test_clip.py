"""When frames are shown, and which are seen."""

import numpy as np
import pytest

from protos.media.videos import FrameSampling
from protos.wire.errors import InvalidRequest, Reason
from vision_service.videos.clip import ClipLimits, Timing

LIMITS = ClipLimits(max_seconds=100.0)


def timing(starts: list[float], end: float, fps: float | None) -> Timing:
    return Timing.of(np.array(starts), end, fps, LIMITS)


def test_the_named_rate_tells_the_times_where_it_is_right() -> None:
    seen = timing([0.0, 0.334, 0.666, 1.0], 1.334, 3.0).sampled(FrameSampling(frame_count=4), 8, 8)
    assert seen.seconds == (0.0, 1 / 3, 2 / 3, 1.0)  # not the container's, rounded to its ticks


@pytest.mark.parametrize("fps", [None, 0.0, 30.0, 1.0])
def test_the_frames_own_times_count_where_it_is_not(fps: float | None) -> None:
    it = timing([0.0, 0.5, 1.0, 1.5], 2.0, fps)
    assert (it.fps, it.is_steady) == (2.0, False)
    assert it.sampled(FrameSampling(frame_count=4), 8, 8).seconds == (0.0, 0.5, 1.0, 1.5)


def test_a_lying_rate_does_not_change_how_many_frames_are_seen() -> None:
    starts = [place / 10 for place in range(100)]
    honest = timing(starts, 10.0, 10.0).sampled(FrameSampling(), 8, 8)
    assert len(honest.indices) == 20
    assert timing(starts, 10.0, 1000.0).sampled(FrameSampling(), 8, 8) == honest


@pytest.mark.parametrize(
    ("starts", "end", "fps", "reason"),
    [
        ([0.0, 100.5], 101.0, 1.0, Reason.VIDEO_TOO_LARGE),
        ([0.0, 1.0], 101.0, 1.0, Reason.VIDEO_TOO_LARGE),
        ([0.0, 1e-9], 2e-9, 1e9, Reason.INVALID_VIDEO),
        ([0.0, 0.0005], 0.001, 2000.0, Reason.INVALID_VIDEO),
    ],
)
def test_what_lasts_too_long_or_runs_too_fast_is_refused(
    starts: list[float], end: float, fps: float, reason: Reason
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        timing(starts, end, fps)
    assert (caught.value.reason, caught.value.param) == (reason, "video")


def test_a_single_frame_is_no_video() -> None:
    with pytest.raises(InvalidRequest) as caught:
        timing([0.0], 0.04, 25.0).sampled(FrameSampling(), 8, 8)
    assert caught.value.reason is Reason.INVALID_VIDEO
