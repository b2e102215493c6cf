"""Frames that a client cut out itself and sends as images."""

from collections.abc import Iterator, Sequence

from protos.media.limits import invalid_video
from vision_service.media.images import ImageLimits, RgbArray, checked_header, decode_rgb
from vision_service.videos.clip import FIELD, ClipLimits


def still_frames(images: Sequence[bytes], limits: ClipLimits) -> Iterator[RgbArray]:
    """Decodes encoded images, one by one.

    Returns:
        Upright RGB pixels, uint8 [height, width, 3], each.

    Raises:
        InvalidRequest: one is damaged, too large, or of another size than the first.
    """
    size = None
    for data in images:
        header = checked_header(data, ImageLimits(max_pixels=limits.max_pixels))
        size = size or (header.width, header.height)
        if size != (header.width, header.height):
            raise invalid_video(FIELD, "has frames of different sizes")
        yield decode_rgb(data, header)
