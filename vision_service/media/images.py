"""Encoded images to RGB pixels: five formats, limits checked before anything is decoded.

What happens to an image, in this order:
  * its first bytes name the format; only that one of Pillow's readers is ever tried;
  * its header gives the upright size; too many pixels or too long and thin is refused undecoded;
  * the first frame is decoded; a truncated or corrupt one is refused;
  * EXIF orientation (also in PNG and WebP, or as XMP) is applied; unreadable EXIF is ignored;
  * transparency (alpha channel, transparent palette entry or colour) is flattened on white;
  * 16-bit grey keeps its upper 8 bits; 1-bit, palette, grey, CMYK and YCCK become RGB by Pillow's
    conversion; colour profiles and gamma are not applied.
But for 16-bit grey, which transformers clips to white, this is what its `load_image` and image
processor do.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from protos.media.formats import ImageHeader, open_image, orientation_of, read_header
from protos.media.limits import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, check_bytes, invalid_image

RgbArray = npt.NDArray[np.uint8]

FIELD = "image"  # the image's name in errors

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may cost before it is decoded."""

    max_bytes: int = MAX_IMAGE_BYTES
    max_pixels: int = MAX_IMAGE_PIXELS


def checked_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Reads the header alone and checks every limit.

    Raises:
        InvalidRequest: INVALID_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_MEDIA.
    """
    check_bytes(data, field=FIELD, most=limits.max_bytes)
    return read_header(data, field=FIELD, max_pixels=limits.max_pixels)


def decode_rgb(data: bytes, header: ImageHeader) -> RgbArray:
    """Decodes the first frame.

    Args:
        data: The encoded image.
        header: What `checked_header` made of it.

    Returns:
        Upright RGB pixels without transparency, uint8 [height, width, 3], of the header's size.

    Raises:
        InvalidRequest: INVALID_IMAGE.

    Source: transformers image_transforms.convert_to_rgb, PIL.ImageOps.exif_transpose; parity in
    tests/parity/test_pixels.py.
    """
    try:
        with open_image(data, header) as image:
            image.load()
            pixels = np.asarray(flattened(_turned_upright(image)), dtype=np.uint8)
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes.
        raise invalid_image(FIELD, "is truncated or corrupt") from error
    if pixels.shape[:2] != (header.height, header.width):  # damaged metadata, read in two ways
        raise invalid_image(FIELD, "has another size than its header says")
    return pixels


def _turned_upright(image: Image.Image) -> Image.Image:
    method = _TRANSPOSITIONS.get(orientation_of(image))
    return image if method is None else image.transpose(method)


def flattened(image: Image.Image) -> Image.Image:
    """A decoded image as RGB, transparency on white; see above."""
    if image.mode.startswith("I"):
        return _flatten_grey16(image)
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _flatten_grey16(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)
    shown = (np.clip(grey, 0, 0xFFFF) >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shown = np.where(grey == transparent, np.uint8(255), shown)
    return Image.fromarray(shown).convert("RGB")
