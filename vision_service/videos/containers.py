"""MP4, WebM and Matroska, by PyAV over FFmpeg: counted without decoding, decoded by seeking.

What happens to a file, in this order:
  * its first bytes chose the one demuxer that is ever tried;
  * every packet's time is read, nothing is decoded: a truncated file, a wrong duration, too many
    or too fast frames are refused here;
  * its first frame is decoded, which says the size and how the frames are turned;
  * of the frames that are asked for, each is decoded from the last key frame before it on, or from
    where the decoder stands if that is nearer. One decoded frame is in memory at a time.

Colours are converted as PyAV's `to_ndarray(format="rgb24")` does it, which is what transformers
calls. Frames are turned upright where the container says so, as EXIF orientation is applied to
images; transformers' PyAV backend does not.
"""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, NoReturn

import av
import numpy as np
import numpy.typing as npt

from protos.media.limits import check_pixels, invalid_video, video_too_large
from protos.wire.errors import InvalidRequest, Reason, ServiceError
from vision_service.media.images import RgbArray
from vision_service.videos.clip import CORRUPT, FIELD, MAX_FRAMES, ClipLimits, Timing

# Decoders, by FFmpeg's names; what else it can decode is not offered to clients.
CODECS = {
    **dict.fromkeys(("h264",), "H.264"),
    **dict.fromkeys(("hevc",), "H.265"),
    **dict.fromkeys(("vp8", "libvpx"), "VP8"),
    **dict.fromkeys(("vp9", "libvpx-vp9"), "VP9"),
    **dict.fromkeys(("av1", "libdav1d"), "AV1"),
    **dict.fromkeys(("mpeg4",), "MPEG-4"),
}
_ENCRYPTED_TAG = "encv"  # ISO/IEC 14496-12: the sample entry of protected video

_MARGIN_PIXELS = 1 << 20

# A file whose frames end this much before the end it claims is cut off.
_CLAIM_SLACK_S, _CLAIM_SLACK_SHARE = 0.5, 0.02


class _Packets(NamedTuple):
    """What the packets of a file say, in units of the stream's time base."""

    times: npt.NDArray[np.int64]  # [N], when frames are shown, ascending
    keys: npt.NDArray[np.int64]  # those of them that can be decoded alone
    end: int
    last_s: float  # when the last packet of any stream ends, seconds


class ContainerClip:
    """The first video stream of a file."""

    def __init__(self, data: bytes, demuxer: str, limits: ClipLimits) -> None:
        """Opens a file, counts its frames and decodes the first.

        Args:
            data: The file.
            demuxer: FFmpeg's name of the only one to try.
            limits: What is accepted.

        Raises:
            InvalidRequest: INVALID_VIDEO, damaged, encrypted or without a frame; VIDEO_TOO_LARGE,
                IMAGE_TOO_LARGE (a frame's pixels); UNSUPPORTED_MEDIA, its codec.
        """
        self._limits = limits
        try:
            self._container = av.open(
                io.BytesIO(data), "r", format=demuxer, metadata_errors="ignore"
            )
            self._stream = _video_stream(self._container)
            self._check_stream()
            packets = self._scan()
            self._times, self._keys = packets.times, packets.keys
            self.timing = self._timing(packets)
            first = self._image(next(self._decoded(self._times[:1])))
        except Exception as error:
            _refuse(error)
        self.height, self.width = first.shape[:2]

    def frames(self, indices: Sequence[int]) -> Iterator[RgbArray]:
        """See `clip.Clip`."""
        wanted = self._times[list(indices)]
        found = self._decoded(np.unique(wanted))
        at, pixels = None, np.empty((0, 0, 3), np.uint8)
        for time in wanted:
            if time != at:
                try:
                    pixels = self._image(next(found))
                except Exception as error:
                    _refuse(error)
                if pixels.shape[:2] != (self.height, self.width):
                    raise invalid_video(FIELD, "has frames of different sizes")
                at = time
            yield pixels

    def _check_stream(self) -> None:
        context = self._stream.codec_context
        if context is None or context.name not in CODECS:
            names = ", ".join(dict.fromkeys(CODECS.values()))
            raise InvalidRequest(
                f"{FIELD} has an unsupported codec, expected one of {names}",
                reason=Reason.UNSUPPORTED_MEDIA,
                param=FIELD,
            )
        if context.codec_tag == _ENCRYPTED_TAG:
            raise invalid_video(FIELD, "is encrypted")
        self._check_size(context.width, context.height)
        # The stream itself may claim another size than the container. FFmpeg counts its margins,
        # too; `_image` checks what comes out.
        context.options = {"max_pixels": str(2 * self._limits.max_pixels + _MARGIN_PIXELS)}
        context.thread_count = 1

    def _check_size(self, width: int, height: int) -> None:
        check_pixels(width, height, field=FIELD, most=self._limits.max_pixels)

    def _scan(self) -> _Packets:
        times, keys, end, last_s = [], [], 0, 0.0
        for packet in self._container.demux():
            if packet.pts is None or packet.time_base is None:
                continue  # what ends a stream; a frame without a time cannot be placed either
            stop = packet.pts + (packet.duration or 0)
            last_s = max(last_s, float(stop * packet.time_base))
            if packet.stream_index != self._stream.index or packet.is_discard:
                continue
            if packet.is_corrupt:
                raise invalid_video(FIELD, CORRUPT)
            times.append(packet.pts)
            end = max(end, stop)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if len(times) > MAX_FRAMES:
                raise video_too_large(FIELD, "frames", len(times), MAX_FRAMES, setting="fixed")
        if not times:
            raise invalid_video(FIELD, "holds no frame")
        ordered = np.unique(np.array(times, np.int64))
        keys = keys or times[:1]
        return _Packets(ordered, np.unique(np.array(keys, np.int64)), end, last_s)

    def _timing(self, packets: _Packets) -> Timing:
        base = float(self._time_base)
        claimed = float(self._container.duration or 0) / av.time_base
        if claimed - packets.last_s > _CLAIM_SLACK_S + _CLAIM_SLACK_SHARE * claimed:
            raise invalid_video(FIELD, CORRUPT)
        first = packets.times[0]
        rate = self._stream.average_rate
        return Timing.of(
            (packets.times - first) * base,
            float(packets.end - first) * base,
            float(rate) if rate else None,
            self._limits,
        )

    @property
    def _time_base(self) -> Fraction:
        base = self._stream.time_base
        if base is None:
            raise invalid_video(FIELD, CORRUPT)
        return base

    def _decoded(self, wanted: npt.NDArray[np.int64]) -> Iterator[av.VideoFrame]:
        """The frames shown at these times, ascending."""
        decoding: Iterator[av.VideoFrame] = iter(())
        at = None
        for time in wanted.tolist():
            key = self._keys[max(0, bisect_right(self._keys, time) - 1)]
            if at is None or key > at:
                decoding = self._decoding_from(key)
            frame = _shown_at(decoding, time)
            if frame is None:  # Some indexes lead behind the key frame that was meant.
                decoding = self._decoding_from(self._times[0])
                frame = _shown_at(decoding, time)
            if frame is None or frame.is_corrupt:
                raise invalid_video(FIELD, CORRUPT)
            at = time
            yield frame

    def _decoding_from(self, time: int) -> Iterator[av.VideoFrame]:
        self._container.seek(int(time), stream=self._stream, backward=True)
        return self._container.decode(self._stream)

    def _image(self, frame: av.VideoFrame) -> RgbArray:
        self._check_size(frame.width, frame.height)
        pixels = frame.to_ndarray(format="rgb24")
        # FFmpeg's angle turns counterclockwise, as NumPy's quarter turns do.
        turned = np.rot90(pixels, round(frame.rotation / 90))
        return np.ascontiguousarray(turned, dtype=np.uint8)


def _video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    """The first stream of moving images; a cover is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise invalid_video(FIELD, "holds no video")


def _shown_at(decoding: Iterator[av.VideoFrame], time: int) -> av.VideoFrame | None:
    """Decodes up to the frame of this time; None where it does not come."""
    for frame in decoding:
        if frame.pts is not None and frame.pts >= time:
            return frame if frame.pts == time else None
    return None


def _refuse(error: Exception) -> NoReturn:
    """FFmpeg raises nearly anything on hostile bytes; what it says stays here."""
    if isinstance(error, ServiceError | MemoryError):
        raise error
    raise invalid_video(FIELD, CORRUPT) from error
