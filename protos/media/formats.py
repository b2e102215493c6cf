"""What an image file is: the accepted formats, and what a header says without decoding a pixel.

The gateway plans with it, the vision tier decodes by it, so that both mean the same by a file.
One more format is one more row of `FORMATS`.
"""

import binascii
import io
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from protos.media.limits import (
    MAX_IMAGE_PIXELS,
    check_pixels,
    check_sides,
    invalid_image,
)
from protos.wire.errors import InvalidRequest, Reason

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_PNG_METADATA = (b"eXIf", *_PNG_TEXTS)
# The only texts that say how an image is held; Pillow would keep all the others in memory.
_PNG_ORIENTING = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0", b"xmp\0")
# Further ancillary chunks that Pillow reads. It keeps those it does not know, too.
_PNG_KNOWN = (b"iCCP", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL", b"fdAT")
_PNG_MAX_METADATA_BYTES = 1024 * 1024  # of one chunk; a camera's EXIF has at most 64 KiB
_WEBP_FIRST_CHUNK = slice(20, 30)  # the ten bytes in which every kind of WebP says its size
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Format (Pillow's name) and size in pixels, EXIF orientation applied."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFormat:
    """One accepted format.

    Attributes:
        name: Pillow's name of it.
        signature: Regular expression that the first bytes match; a dot is any byte.
        reader: Pillow's reader; only this one is ever given the bytes.
        canvas: Width and height that the first bytes claim, for a reader that reserves memory
            for them while it opens; None when the header is damaged.
        metadata: The file without its pixels, for a reader that decodes them on the way to the
            metadata behind them.
        head: The file up to its pixels, as little of it as its size takes.
        lean: The file without what would only be held in memory.
    """

    name: str
    signature: bytes
    reader: type[ImageFile.ImageFile]
    canvas: Callable[[bytes], tuple[int, int] | None] | None = None
    metadata: Callable[[bytes], bytes] | None = None
    head: Callable[[bytes], bytes] = bytes
    lean: Callable[[bytes], bytes] = bytes


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """What a WebP's first chunk claims; a cut one claims none.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    kind, body = data[12:16], data[_WEBP_FIRST_CHUNK]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Name and place of every chunk, those that are only there to be held in memory left out.

    What stands behind the last whole chunk comes as a chunk without a name.
    """
    offset = len(_PNG_SIGNATURE)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name = data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if not _is_idle(name, data[offset + 8 : offset + 40], length):
            yield name, slice(offset, end)
        offset = end
    if offset < len(data):
        yield b"", slice(offset, len(data))


def _is_idle(name: bytes, start: bytes, length: int) -> bool:
    """Whether a chunk of a PNG says nothing about size, pixels or orientation."""
    if not name[:1].islower() or name in _PNG_KNOWN:
        return False
    if name not in _PNG_METADATA or length > _PNG_MAX_METADATA_BYTES:
        return True
    return name in _PNG_TEXTS and not start.startswith(_PNG_ORIENTING)


def _png_without_pixels(data: bytes) -> bytes:
    """The PNG with only its header and metadata, and one empty pixel chunk at the end."""
    # One buffer and no list: a file may hold millions of empty chunks.
    kept = bytearray(_PNG_SIGNATURE)
    for name, place in _png_chunks(data):
        if name == b"IHDR" or name in _PNG_METADATA:
            kept += data[place]
    kept += struct.pack(">I4sI", 0, b"IDAT", binascii.crc32(b"IDAT"))
    return bytes(kept)


def _png_head(data: bytes) -> bytes:
    """The PNG up to the length and name of its first pixel chunk."""
    kept = bytearray(_PNG_SIGNATURE)
    for name, place in _png_chunks(data):
        if name == b"IDAT":
            kept += data[place.start : place.start + 8]
            break
        kept += data[place]
    return bytes(kept)


def _png_lean(data: bytes) -> bytes:
    """The PNG without the chunks that Pillow would hold for nothing; itself if it has none."""
    size = sum(min(place.stop, len(data)) - place.start for _, place in _png_chunks(data))
    if len(_PNG_SIGNATURE) + size == len(data):
        return data
    kept = bytearray(_PNG_SIGNATURE)
    for _, place in _png_chunks(data):
        kept += memoryview(data)[place]
    return bytes(kept)


FORMATS = (
    ImageFormat(
        name="PNG",
        signature=re.escape(_PNG_SIGNATURE),
        reader=PngImagePlugin.PngImageFile,
        metadata=_png_without_pixels,
        head=_png_head,
        lean=_png_lean,
    ),
    ImageFormat(name="JPEG", signature=rb"\xff\xd8\xff", reader=JpegImagePlugin.JpegImageFile),
    ImageFormat(
        name="WEBP",
        signature=rb"RIFF....WEBP",
        reader=WebPImagePlugin.WebPImageFile,
        canvas=_webp_canvas,
    ),
    ImageFormat(name="GIF", signature=rb"GIF8[79]a", reader=GifImagePlugin.GifImageFile),
    ImageFormat(name="BMP", signature=rb"BM", reader=BmpImagePlugin.BmpImageFile),
)
_BY_NAME = {kind.name: kind for kind in FORMATS}

# Follows "... has an"; anything else is refused before it is opened.
UNSUPPORTED = "unsupported image format, expected one of " + ", ".join(_BY_NAME)


def read_header(data: bytes, *, field: str, max_pixels: int = MAX_IMAGE_PIXELS) -> ImageHeader:
    """Format and upright size of an encoded image, without decoding its pixels.

    Args:
        data: The encoded image.
        field: Its place in the request, for errors.
        max_pixels: Most pixels, before orientation and resizing.

    Raises:
        InvalidRequest: UNSUPPORTED_MEDIA, none of `FORMATS`; INVALID_IMAGE, the header is
            damaged, or the image too long and thin; IMAGE_TOO_LARGE, it claims too many pixels.
    """
    kind = sniff(data, field=field)
    if kind.canvas is not None:
        claimed = kind.canvas(data)
        if claimed is None:
            raise _unreadable(field, kind)
        check_pixels(*claimed, field=field, most=max_pixels)
    try:
        image = kind.reader(io.BytesIO(kind.head(data)))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidRequest(
            f"{field} has too many pixels, expected at most {max_pixels}",
            reason=Reason.IMAGE_TOO_LARGE,
            param=field,
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever damaged bytes make of them.
        raise _unreadable(field, kind) from error
    width, height = image.size
    check_pixels(width, height, field=field, most=max_pixels)
    check_sides(width, height, field=field)
    if _orientation(image, data, kind) in _SIDEWAYS:
        width, height = height, width
    return ImageHeader(format=kind.name, width=width, height=height)


def open_image(data: bytes, header: ImageHeader) -> ImageFile.ImageFile:
    """Pillow's image of a file whose header was accepted by `read_header`; nothing is decoded."""
    kind = _BY_NAME[header.format]
    return kind.reader(io.BytesIO(kind.lean(data)))


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1, upright, where there is none or the metadata are damaged.

    What stands behind a PNG's pixels counts only once they are loaded.
    """
    try:
        # NOTE: the base class's method, because that of PNG decodes the pixels.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's parser on hostile bytes; the pixels themselves may be good.
        return 1
    return orientation if isinstance(orientation, int) else 1


def sniff(data: bytes, *, field: str) -> ImageFormat:
    """The format by the first bytes alone.

    Raises:
        InvalidRequest: INVALID_IMAGE when empty, UNSUPPORTED_MEDIA for any other format.
    """
    if not data:
        raise invalid_image(field, "is an empty image")
    for kind in FORMATS:
        if re.match(kind.signature, data, re.DOTALL):
            return kind
    raise InvalidRequest(
        f"{field} has an {UNSUPPORTED}", reason=Reason.UNSUPPORTED_MEDIA, param=field
    )


def _orientation(image: ImageFile.ImageFile, data: bytes, kind: ImageFormat) -> int:
    """What `orientation_of` says once the pixels are decoded, without decoding them."""
    if kind.metadata is None:
        return orientation_of(image)
    try:
        return orientation_of(kind.reader(io.BytesIO(kind.metadata(data))))
    except Exception:  # Damaged metadata make an image unrotated, not unreadable.
        return 1


def _unreadable(field: str, kind: ImageFormat) -> InvalidRequest:
    return invalid_image(field, f"is not a readable {kind.name} image")
