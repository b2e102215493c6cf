"""MP4, WebM and Matroska: every frame by its time, and what is refused before it costs anything."""

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.media.videos import FrameSampling
from protos.wire.errors import InvalidRequest, Reason
from tests.support.videos import KINDS, RgbArray, moving, repeated, video_file
from vision_service.videos.clip import Clip, ClipLimits
from vision_service.videos.opening import open_clip

ROOT = Path(__file__).parents[4]
LIMITS = ClipLimits()
ALL = FrameSampling(frame_count=10)


def opened(data: bytes, **limits: Any) -> Clip:
    return open_clip(data, ClipLimits(**limits))


def decoded(data: bytes) -> list[RgbArray]:
    """All frames one after the other, as the reference decodes them."""
    with av.open(io.BytesIO(data), "r") as container:
        found = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [np.asarray(pixels, np.uint8) for pixels in found]


def refusal(data: bytes, **limits: Any) -> Reason:
    with pytest.raises(InvalidRequest) as caught:
        clip = opened(data, **limits)
        list(clip.frames(range(len(clip.timing.starts))))
        clip.timing.sampled(ALL, clip.width, clip.height)
    assert caught.value.param == "video"
    return caught.value.reason


@given(
    kind=st.sampled_from(KINDS),
    key_every=st.sampled_from([1, 3, 10, 100]),
    places=st.lists(st.integers(0, 32), min_size=1, max_size=12).map(sorted),
)
@settings(max_examples=15, deadline=None)
def test_frames_found_by_seeking_are_those_of_decoding_everything(
    kind: tuple[str, str], key_every: int, places: list[int]
) -> None:
    container, codec = kind
    file = video_file(moving(33, 48, 32), container=container, codec=codec, key_every=key_every)
    whole = decoded(file)
    assert len(whole) == 33
    for place, pixels in zip(places, opened(file).frames(places), strict=True):
        assert np.array_equal(pixels, whole[place]), place


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_times_of_a_variable_rate_are_the_containers(container: str) -> None:
    times = [0.0, 0.1, 0.2, 1.0, 3.0, 3.1]
    file = video_file(moving(6, 32, 32), times=times, container=container)
    seen = opened(file).timing.sampled(FrameSampling(frame_count=6), 32, 32)
    assert seen.seconds == pytest.approx(times, abs=0.002)


def test_times_begin_with_the_first_frame() -> None:
    file = video_file(moving(5, 32, 32), times=[7.0 + place / 2 for place in range(5)])
    seen = opened(file).timing.sampled(FrameSampling(frame_count=5), 32, 32)
    assert seen.seconds == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0], abs=0.002)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_frames_are_turned_upright(rotation: int, turns: int) -> None:
    (frame,) = moving(1, 64, 48)
    file = video_file([frame] * 2, rotation=rotation)
    clip = opened(file)
    upright = np.rot90(decoded(file)[0], turns)
    assert (clip.height, clip.width) == upright.shape[:2]
    assert np.array_equal(next(clip.frames([0])), upright)


def without_samples() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        output.start_encoding()
    return file.getvalue()


def encrypted() -> bytes:
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "ab" * 16}
    return video_file(moving(8, 64, 64), container_options={**keys, "encryption_kid": "cd" * 16})


def of_two_sizes() -> bytes:
    file = io.BytesIO()
    parts = [
        video_file(moving(4, *size), container="webm", codec="libvpx", rate=5)
        for size in ((64, 48), (96, 64))
    ]
    with av.open(file, "w", format="webm") as output:
        stream: Any = None
        for at, part in enumerate(parts):
            with av.open(io.BytesIO(part), "r") as source:
                stream = stream or output.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.pts is not None and packet.dts is not None:
                        packet.pts, packet.dts = packet.pts + at * 800, packet.dts + at * 800
                        packet.stream = stream
                        output.mux(packet)
    return file.getvalue()


def lying() -> bytes:
    """A Matroska file whose header says ten hours."""
    data = video_file(moving(6, 32, 32), container="matroska")
    at = data.index(b"\x44\x89\x88") + 3
    return data[:at] + struct.pack(">d", 36_000_000.0) + data[at + 8 :]


WHOLE = video_file(moving(40, 96, 64), rate=10)
IN_MATROSKA = video_file(moving(40, 96, 64), rate=10, container="matroska")

BAD: dict[str, tuple[Callable[[], bytes], Reason]] = {
    "empty": (lambda: b"", Reason.INVALID_VIDEO),
    "another format": (lambda: b"\x00\x00\x01\xba" + bytes(99), Reason.UNSUPPORTED_MEDIA),
    "another codec": (
        lambda: video_file(moving(3, 32, 32), codec="ffv1", container="matroska"),
        Reason.UNSUPPORTED_MEDIA,
    ),
    "header alone": (lambda: WHOLE[:64], Reason.INVALID_VIDEO),
    "cut off": (lambda: WHOLE[: len(WHOLE) // 2], Reason.INVALID_VIDEO),
    "cut off, in Matroska": (lambda: IN_MATROSKA[: len(IN_MATROSKA) // 2], Reason.INVALID_VIDEO),
    "without samples": (without_samples, Reason.INVALID_VIDEO),
    "encrypted": (encrypted, Reason.INVALID_VIDEO),
    "two sizes": (of_two_sizes, Reason.INVALID_VIDEO),
    "says ten hours": (lying, Reason.INVALID_VIDEO),
    "one frame": (lambda: video_file(moving(1, 32, 32)), Reason.INVALID_VIDEO),
    "too fast": (lambda: video_file(moving(4, 32, 32), rate=5000), Reason.INVALID_VIDEO),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(case: str) -> None:
    make, reason = BAD[case]
    assert refusal(make()) is reason


def test_limits_of_pixels_and_seconds_are_held_before_a_frame_is_decoded() -> None:
    assert refusal(WHOLE, max_pixels=96 * 64 - 1) is Reason.IMAGE_TOO_LARGE
    assert refusal(WHOLE, max_seconds=3.9) is Reason.VIDEO_TOO_LARGE
    assert len(opened(WHOLE, max_pixels=96 * 64, max_seconds=4.0).timing.starts) == 40


# Reads all frames that are seen of a file of two hours, and tells by how much its memory grew.
READ = """
import resource, sys
from pathlib import Path
from protos.media.videos import FrameSampling
from vision_service.videos.clip import ClipLimits
from vision_service.videos import containers
from vision_service.videos.opening import open_clip
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = Path(sys.argv[1]).read_bytes()
before = peak()
clip = open_clip(data, ClipLimits())
seen = clip.timing.sampled(FrameSampling(), clip.width, clip.height)
count = sum(frame[0, 0, 0] >= 0 for frame in clip.frames(seen.indices))
print(len(clip.timing.starts), count, seen.seconds[-1], peak() - before)
"""


def test_two_hours_are_read_in_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "long.mp4"
    file.write_bytes(repeated(moving(60, 96, 64), times=600, rate=5))
    command = [sys.executable, "-c", READ, str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    total, count, last, grown_kib = done.stdout.split()
    assert (int(total), int(count), float(last)) == (36_000, 768, 7199.8)
    # All frames decoded would take 0.7 GB, the 768 that are seen 14 MB.
    assert int(grown_kib) < 48 * 1024
