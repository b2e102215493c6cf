"""GIF and animated WebP, by Pillow; one frame in memory at a time."""

from collections.abc import Iterator, Sequence

import numpy as np

from protos.media.formats import open_image, read_header
from protos.media.limits import invalid_video, video_too_large
from vision_service.media.images import RgbArray, flattened
from vision_service.videos.clip import CORRUPT, FIELD, MAX_FRAMES, ClipLimits, Timing

# What browsers make of a frame that claims to last less than its minimum, milliseconds.
_LEAST_MS, _INSTEAD_MS = 20, 100


class AnimationClip:
    """A GIF or WebP of several frames; transparency is flattened on white, as of images."""

    def __init__(self, data: bytes, limits: ClipLimits) -> None:
        """Reads the header and the time of every frame.

        Raises:
            InvalidRequest: it is damaged or beyond a limit.
        """
        header = read_header(data, field=FIELD, max_pixels=limits.max_pixels)
        self.width, self.height = header.width, header.height
        self._image = open_image(data, header)
        lasting_ms = list(self._lasting_ms())
        ends = np.cumsum(lasting_ms) / 1000
        starts = np.concatenate([[0.0], ends[:-1]])
        steady = len(set(lasting_ms)) == 1
        self.timing = Timing.of(
            starts, float(ends[-1]), 1000 / lasting_ms[0] if steady else None, limits
        )

    def _lasting_ms(self) -> Iterator[float]:
        count = getattr(self._image, "n_frames", 1)
        if count > MAX_FRAMES:
            raise video_too_large(FIELD, "frames", count, MAX_FRAMES, setting="fixed")
        for index in range(count):
            self._show(index)
            lasting = float(self._image.info.get("duration") or 0)
            yield lasting if lasting >= _LEAST_MS else _INSTEAD_MS

    def frames(self, indices: Sequence[int]) -> Iterator[RgbArray]:
        """See `clip.Clip`."""
        for index in indices:
            self._show(index)
            pixels = np.asarray(flattened(self._image), dtype=np.uint8)
            if pixels.shape[:2] != (self.height, self.width):
                raise invalid_video(FIELD, "has frames of different sizes")
            yield pixels

    def _show(self, index: int) -> None:
        try:
            self._image.seek(index)
            self._image.load()
        except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes.
            raise invalid_video(FIELD, CORRUPT) from error
