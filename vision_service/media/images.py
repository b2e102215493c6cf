"""Encoded images to RGB pixels: five formats, limits checked before anything is decoded.

What happens to an image, in this order:
  * its first bytes name the format; only that one of Pillow's readers is ever tried;
  * its header gives the size; too many pixels or too long and thin is refused undecoded;
  * the first frame is decoded; a truncated or corrupt one is refused;
  * EXIF orientation (also in PNG and WebP, or as XMP) is applied; unreadable EXIF is ignored;
  * transparency (alpha channel, transparent palette entry or colour) is flattened on white;
  * 16-bit grey keeps its upper 8 bits; 1-bit, palette, grey, CMYK and YCCK become RGB by Pillow's
    conversion; colour profiles and gamma are not applied.
But for 16-bit grey, which transformers clips to white, this is what its `load_image` and image
processor do.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from protos.media import images as images
from protos.wire.errors import InvalidRequest, Reason

RgbArray = npt.NDArray[np.uint8]

UNSUPPORTED = "unsupported image format, expected PNG, JPEG, WebP, GIF or BMP"

# Importing these five registers their readers; Pillow would import all of its forty otherwise.
READERS = (BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)

_ORIENTATION_TAG = 0x0112
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

    max_bytes: int = images.MAX_IMAGE_BYTES
    max_pixels: int = images.MAX_IMAGE_PIXELS


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size in pixels as stored, before EXIF orientation."""

    width: int
    height: int


def sniff_format(data: bytes) -> str:
    """Names the format by the first bytes: "PNG", "JPEG", "WEBP", "GIF" or "BMP".

    Raises:
        InvalidRequest: INVALID_IMAGE when empty, UNSUPPORTED_MEDIA for any other format.
    """
    if not data:
        raise _invalid("image is empty")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    raise InvalidRequest(UNSUPPORTED, reason=Reason.UNSUPPORTED_MEDIA, param="image")


def read_size(data: bytes, limits: ImageLimits) -> ImageSize:
    """Reads the header alone and checks every limit.

    Raises:
        InvalidRequest: INVALID_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_MEDIA.
    """
    with _open(data, limits) as image:
        return ImageSize(image.width, image.height)


def decode_rgb(data: bytes, limits: ImageLimits) -> RgbArray:
    """Decodes the first frame.

    Returns:
        Upright RGB pixels without transparency, uint8 [height, width, 3].

    Raises:
        InvalidRequest: INVALID_IMAGE, IMAGE_TOO_LARGE or UNSUPPORTED_MEDIA.

    Source: transformers image_transforms.convert_to_rgb, PIL.ImageOps.exif_transpose; parity in
    tests/parity/test_pixels.py.
    """
    with _open(data, limits) as image:
        try:
            image.load()
            upright = _apply_orientation(image)
            return np.asarray(_flatten(upright), dtype=np.uint8)
        except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes.
            raise _invalid("image is truncated or corrupt") from error


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if len(data) > limits.max_bytes:
        raise _too_large(f"image has {len(data)} bytes, at most {limits.max_bytes} are accepted")
    name = sniff_format(data)
    if name == "WEBP":
        # Pillow's reader reserves the canvas while opening, so its header is read here first.
        _check_size(*_webp_size(data), limits)
    try:
        image = Image.open(io.BytesIO(data), formats=(name,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(
            f"image has more pixels than the {limits.max_pixels} that are accepted"
        ) from error
    except Exception as error:  # Pillow's readers raise nearly anything on hostile bytes.
        raise _invalid("image has a truncated or corrupt header") from error
    _check_size(image.width, image.height, limits)
    return image


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise _invalid(f"image is {width} x {height}, expected at least 1 x 1")
    if width * height > limits.max_pixels:
        raise _too_large(
            f"image has {width} x {height} = {width * height} pixels,"
            f" at most {limits.max_pixels} are accepted"
        )
    if max(width, height) > images.MAX_ASPECT_RATIO * min(width, height):
        raise _invalid(
            f"image is {width} x {height}, expected an aspect ratio of at most"
            f" {images.MAX_ASPECT_RATIO}"
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        raise _invalid("image has a truncated or corrupt header")
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
        return width & 0x3FFF, height & 0x3FFF
    raise _invalid("image has a truncated or corrupt header")


def _apply_orientation(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # Pillow's EXIF reader on hostile bytes; the pixels themselves are good.
        orientation = 1
    method = _TRANSPOSITIONS.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _flatten(image: Image.Image) -> Image.Image:
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


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(message, reason=Reason.INVALID_IMAGE, param="image")


def _too_large(message: str) -> InvalidRequest:
    return InvalidRequest(message, reason=Reason.IMAGE_TOO_LARGE, param="image")
