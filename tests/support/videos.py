"""Videos for tests, made by the library that reads them, and nothing of them kept in files."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

RgbArray = npt.NDArray[np.uint8]

# A codec of each container, and one more; lossy all, so decoders must agree about what was lost.
KINDS = (
    ("mp4", "libx264"),
    ("mp4", "mpeg4"),
    ("webm", "libvpx"),
    ("webm", "libvpx-vp9"),
    ("matroska", "libx264"),
)
_TICKS = 90_000  # a second of frame times that are given one by one


def moving(count: int, width: int, height: int, *, seed: int = 0) -> list[RgbArray]:
    """Frames in which everything changes: uint8 [height, width, 3] each."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    large = base.repeat(8, 0).repeat(8, 1)
    return [
        np.roll(large, (3 * index, 2 * index), (0, 1))[:height, :width] // 2
        + np.uint8(index * 7 % 128)
        for index in range(count)
    ]


def video_file(
    frames: Sequence[RgbArray],
    *,
    rate: Fraction | int = 25,
    container: str = "mp4",
    codec: str = "libx264",
    key_every: int = 12,
    times: Sequence[float] = (),
    options: dict[str, str] | None = None,
    rotation: int = 0,
    container_options: dict[str, str] | None = None,
) -> bytes:
    """An encoded video.

    Args:
        frames: All of one size, even sides.
        rate: Frames a second.
        container: FFmpeg's muxer.
        codec: FFmpeg's encoder.
        key_every: Frames from one key frame to the next.
        times: When each frame is shown, seconds; empty: at a steady rate.
        options: Of the encoder.
        rotation: Degrees that players turn frames by, counterclockwise.
        container_options: Of the muxer.
    """
    file = io.BytesIO()
    base = Fraction(1, _TICKS) if times else 1 / Fraction(rate)
    with av.open(file, "w", format=container, options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options={**_QUIET, **(options or {})})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = "yuv420p", key_every
        if times:
            stream.codec_context.time_base = stream.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(times[index] * _TICKS) if times else index
            frame.time_base = base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


_QUIET = {"x264-params": "log-level=none", "x265-params": "log-level=none"}


def animation(frames: Sequence[RgbArray], form: str, lasting_ms: int | list[int]) -> bytes:
    """A GIF or an animated, lossless WebP."""
    file = io.BytesIO()
    first, *rest = [Image.fromarray(pixels) for pixels in frames]
    first.save(
        file, form, save_all=True, append_images=rest, duration=lasting_ms, loop=0, lossless=True
    )
    return file.getvalue()


def repeated(frames: Sequence[RgbArray], *, times: int, rate: int) -> bytes:
    """An MP4 that shows the same frames over and over; made without encoding them again."""
    file = io.BytesIO()
    once = video_file(frames, rate=rate, codec="mpeg4", key_every=len(frames))
    with av.open(io.BytesIO(once), "r") as source, av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream_from_template(source.streams.video[0])
        packets: list[Any] = [one for one in source.demux(video=0) if one.dts is not None]
        base = source.streams.video[0].time_base
        assert base is not None
        period = round(len(frames) / rate / base)
        for turn in range(times):
            for packet in packets:
                copy: Any = av.Packet(bytes(packet))
                copy.pts, copy.dts = packet.pts + turn * period, packet.dts + turn * period
                copy.duration, copy.time_base = packet.duration, base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                output.mux(copy)
    return file.getvalue()
