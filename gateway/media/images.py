"""Images as clients send them: URLs, header checks, and the plan that a header allows.

Nothing here decodes pixels: an image's header gives its size, the size gives its grid.
"""

import binascii
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blake3 import blake3
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

from protos.media import images as images
from protos.media.images import Grid, ImageSettings
from protos.wire.errors import InvalidRequest, Reason

DIGEST_KEY_BYTES = 32

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES: Sequence[tuple[str, bytes]] = (
    ("PNG", _PNG_SIGNATURE),
    ("JPEG", b"\xff\xd8\xff"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("BMP", b"BM"),
)
_OPENERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """What one request may bring; sizes in bytes and in pixels before resizing."""

    max_image_bytes: int = images.MAX_IMAGE_BYTES
    max_image_pixels: int = images.MAX_IMAGE_PIXELS
    max_request_images: int = images.MAX_REQUEST_IMAGES
    max_request_bytes: int = images.MAX_REQUEST_BYTES
    max_request_pixels: int = images.MAX_REQUEST_PIXELS
    max_image_tokens: int | None = None  # None: as many as the checkpoint's largest area gives


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """Format and size in pixels, EXIF orientation applied."""

    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedImage:
    """One image of a request, planned but not decoded."""

    data: bytes
    field: str  # where the client put it, for errors
    header: ImageHeader
    grid: Grid
    token_count: int
    digest: bytes  # keyed BLAKE3, 32 bytes


def image_bytes(url: str, *, field: str, limits: MediaLimits | None = None) -> bytes:
    """The bytes behind an image URL; only `data:` URLs in base64 are accepted.

    The URL's media type is ignored: the bytes themselves say what they are.

    Args:
        url: What the client sent.
        field: Its place in the request, for errors.
        limits: Defaults where None.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, any other kind of URL; INVALID_IMAGE, not base64 or
            empty; IMAGE_TOO_LARGE, found before anything is decoded.
    """
    limits = limits or MediaLimits()
    if url[:5].lower() != "data:":
        raise InvalidRequest(
            f"{field} has a URL that is not allowed, expected a data: URL",
            reason=Reason.URL_NOT_ALLOWED,
            param=field,
        )
    # The header of a real URL is short; looking no further keeps a hostile one from being copied.
    comma = url.find(",", 0, 256)
    if comma < 0 or not url[:comma].lower().endswith(";base64"):
        raise _invalid(field, "has a data: URL that is not base64")
    length = len(url) - comma - 1
    if length // 4 * 3 > limits.max_image_bytes + 2:
        raise _too_large(field, "bytes", length // 4 * 3, limits.max_image_bytes)
    if length % 4 or url.endswith("==="):  # Python's strict mode lets surplus padding pass.
        raise _invalid(field, "has a data: URL that is not valid base64")
    try:
        data = binascii.a2b_base64(url[comma + 1 :], strict_mode=True)
    except ValueError as error:  # binascii.Error, and non-ASCII text
        raise _invalid(field, "has a data: URL that is not valid base64") from error
    if len(data) > limits.max_image_bytes:
        raise _too_large(field, "bytes", len(data), limits.max_image_bytes)
    return data


def read_header(
    data: bytes, *, field: str, max_pixels: int = images.MAX_IMAGE_PIXELS
) -> ImageHeader:
    """Format and size of an encoded image, without decoding its pixels.

    Args:
        data: The encoded image.
        field: Its place in the request, for errors.
        max_pixels: Most pixels, before orientation and resizing.

    Raises:
        InvalidRequest: UNSUPPORTED_MEDIA, not PNG, JPEG, WebP, GIF or BMP; INVALID_IMAGE, the
            header is damaged; IMAGE_TOO_LARGE, it claims too many pixels.
    """
    kind = _sniff(data, field)
    if kind == "WEBP":
        # Opening a WebP allocates its canvas, so its size is looked at beforehand.
        _check_pixels(*_webp_canvas(data, field), field=field, max_pixels=max_pixels)
    try:
        image = _OPENERS[kind](io.BytesIO(data))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InvalidRequest(
            f"{field} has too many pixels, expected at most {max_pixels}",
            reason=Reason.IMAGE_TOO_LARGE,
            param=field,
        ) from error
    except Exception as error:  # Pillow's parsers raise whatever damaged bytes make of them.
        raise _invalid(field, f"is not a readable {kind} image") from error
    width, height = image.size
    _check_pixels(width, height, field=field, max_pixels=max_pixels)
    if _orientation(image, data, kind) in _SIDEWAYS:
        width, height = height, width
    return ImageHeader(format=kind, width=width, height=height)


def plan_images(
    sources: Sequence[tuple[str, bytes]],
    settings: ImageSettings,
    *,
    limits: MediaLimits,
    digest_key: bytes,
) -> tuple[PlannedImage, ...]:
    """Checks all images of a request and plans their placeholders.

    Args:
        sources: Field and bytes of each image, in prompt order.
        settings: The checkpoint's image settings.
        limits: What one request may bring.
        digest_key: 32 bytes; images have equal digests only under the same key.

    Raises:
        InvalidRequest: IMAGE_TOO_LARGE, INVALID_IMAGE or UNSUPPORTED_MEDIA, naming the field.
    """
    _check_counts(sources, limits)
    planned = []
    pixels = 0
    for field, data in sources:
        header = read_header(data, field=field, max_pixels=limits.max_image_pixels)
        pixels += header.width * header.height
        if pixels > limits.max_request_pixels:
            raise _too_large(field, "pixels in all images", pixels, limits.max_request_pixels)
        grid = images.grid_thw(header.height, header.width, settings, field=field)
        tokens = images.token_count(grid, settings)
        if limits.max_image_tokens is not None and tokens > limits.max_image_tokens:
            raise _too_large(field, "tokens", tokens, limits.max_image_tokens)
        planned.append(
            PlannedImage(
                data=data,
                field=field,
                header=header,
                grid=grid,
                token_count=tokens,
                digest=blake3(data, key=digest_key).digest(),
            )
        )
    return tuple(planned)


def _check_counts(sources: Sequence[tuple[str, bytes]], limits: MediaLimits) -> None:
    if len(sources) > limits.max_request_images:
        raise InvalidRequest(
            f"messages hold {len(sources)} images, expected at most {limits.max_request_images}",
            reason=Reason.IMAGE_TOO_LARGE,
            param="messages",
        )
    for field, data in sources:
        if len(data) > limits.max_image_bytes:
            raise _too_large(field, "bytes", len(data), limits.max_image_bytes)
    total = sum(len(data) for _, data in sources)
    if total > limits.max_request_bytes:
        raise _too_large("messages", "bytes in all images", total, limits.max_request_bytes)


def _sniff(data: bytes, field: str) -> str:
    if not data:
        raise _invalid(field, "is an empty image")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for kind, signature in _SIGNATURES:
        if data.startswith(signature):
            return kind
    raise InvalidRequest(
        f"{field} has an unsupported image format, expected {', '.join(images.ACCEPTED_FORMATS)}",
        reason=Reason.UNSUPPORTED_MEDIA,
        param=field,
    )


def _webp_canvas(data: bytes, field: str) -> tuple[int, int]:
    """Width and height a WebP's first chunk claims."""
    chunk, body = data[12:16], data[20:30]
    try:
        if chunk == b"VP8X":
            return (
                int.from_bytes(body[4:7], "little") + 1,
                int.from_bytes(body[7:10], "little") + 1,
            )
        if chunk == b"VP8L":
            (bits,) = struct.unpack_from("<I", body, 1)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        if chunk == b"VP8 ":
            width, height = struct.unpack_from("<HH", body, 6)
            return width & 0x3FFF, height & 0x3FFF
    except struct.error:
        pass
    raise _invalid(field, "is not a readable WEBP image")


def _orientation(image: ImageFile.ImageFile, data: bytes, kind: str) -> int:
    """EXIF orientation, 1 to 8, found where Pillow's `exif_transpose` finds it.

    NOTE: Pillow's `getexif` of a PNG decodes the pixels to reach what may come after them.
    """
    try:
        if kind == "PNG":
            image = PngImagePlugin.PngImageFile(io.BytesIO(_png_without_pixels(data)))
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # Damaged metadata make an image unrotated, not unreadable.
        return 1
    return orientation if isinstance(orientation, int) else 1


def _png_without_pixels(data: bytes) -> bytes:
    """The PNG with only its header and metadata, and one empty pixel chunk at the end."""
    kept = [_PNG_SIGNATURE]
    offset = len(_PNG_SIGNATURE)
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        name = data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if name == b"IHDR" or name in _PNG_METADATA:
            kept.append(data[offset:end])
        offset = end
    empty = struct.pack(">I4sI", 0, b"IDAT", binascii.crc32(b"IDAT"))
    return b"".join((*kept, empty))


def _check_pixels(width: int, height: int, *, field: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _invalid(field, f"is {width}x{height} pixels")
    if width * height > max_pixels:
        raise _too_large(field, "pixels", width * height, max_pixels)


def _invalid(field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {fault}", reason=Reason.INVALID_IMAGE, param=field)


def _too_large(field: str, unit: str, actual: int, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"{field} has {actual} {unit}, expected at most {limit}",
        reason=Reason.IMAGE_TOO_LARGE,
        param=field,
    )
