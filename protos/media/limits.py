"""What an image, a video or a PDF may cost, checked alike by the gateway and the vision tier.

The constants are defaults; a tier's settings may choose others.
"""

from protos.wire.errors import InvalidRequest, Reason

MAX_IMAGE_BYTES = 10 * 1024 * 1024
MAX_IMAGE_PIXELS = 65_000_000  # phones write 48.8 (8064 x 6048), 50 and 64.1 (9248 x 6936)
PILLOW_PIXELS = 178_956_970  # Pillow itself refuses more
MAX_IMAGE_TOKENS = 1280  # what two slow cores encode and prefill within the default deadlines
MAX_REQUEST_IMAGES = 16
MAX_REQUEST_BYTES = 32 * 1024 * 1024
MAX_REQUEST_PIXELS = 4 * MAX_IMAGE_PIXELS
MAX_VIDEO_BYTES = 48 * 1024 * 1024  # under the wire's largest message
MAX_VIDEO_SECONDS = 3 * 3600.0
MAX_VIDEO_FRAMES = 768  # that are seen; what the published checkpoints take
MAX_VIDEO_TOKENS = 2560  # of all frames; as for MAX_IMAGE_TOKENS
MAX_VIDEO_PIXELS = 36_000_000  # of a frame; 8K has 33.2
MAX_VIDEO_RATE = 1000.0  # frames a second of the video itself; phones write up to 960
MAX_REQUEST_VIDEOS = 4
MAX_PDF_BYTES = 32 * 1024 * 1024
MAX_PDF_PAGES = 20  # of all PDFs of a request
PDF_HEAD_BYTES = 1024  # in which a PDF says that it is one
MOST_PDF_PAGES = 1000  # that any setting allows
PDF_PAGE_PIXELS = 1280  # the longer side of a page: A4 at 110 dots an inch, 10 points are read
LEAST_PAGE_PIXELS = 32
MOST_PAGE_PIXELS = 1600  # a page of noise, and its text, fit the wire's usual message
MAX_ASPECT_RATIO = 200  # of transformers' smart_resize; exactly 200 is accepted

# The setting behind a limit, of the gateway and of the vision tier alike.
_SETTINGS = {
    "bytes": "max_image_mib",
    "pixels": "max_image_pixels",
    "patches": "max_image_patches",
}


def check_bytes(data: bytes, *, field: str, most: int) -> None:
    """Compares an encoded image's size with the limit, which it may just reach.

    Raises:
        InvalidRequest: IMAGE_TOO_LARGE.
    """
    if len(data) > most:
        raise image_too_large(field, "bytes", len(data), most)


def check_pixels(width: int, height: int, *, field: str, most: int) -> None:
    """Compares a number of pixels with the limit, which it may just reach.

    Raises:
        InvalidRequest: IMAGE_TOO_LARGE.
    """
    if width * height > most:
        raise image_too_large(field, "pixels", width * height, most)


def check_sides(width: int, height: int, *, field: str) -> None:
    """Refuses what has no pixels, or is too long and thin for the image processor.

    Raises:
        InvalidRequest: INVALID_IMAGE.
    """
    if min(width, height) < 1:
        raise invalid_image(field, f"is {width} x {height} pixels, expected at least 1 x 1")
    if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        raise invalid_image(
            field,
            f"is {width} x {height} pixels, expected an aspect ratio of at most {MAX_ASPECT_RATIO}",
        )


def invalid_image(field: str, fault: str) -> InvalidRequest:
    """The error for a damaged image; `fault` continues a sentence that begins with the field."""
    return _invalid(Reason.INVALID_IMAGE, field, fault)


def image_too_large(field: str, unit: str, actual: int, limit: int) -> InvalidRequest:
    """The error for an image, or all of them, above a limit; `unit` is what is counted."""
    named = f" ({_SETTINGS[unit]})" if unit in _SETTINGS else ""
    return _too_large(Reason.IMAGE_TOO_LARGE, field, unit, actual, limit, named)


def invalid_video(field: str, fault: str) -> InvalidRequest:
    """The error for a damaged video; `fault` continues a sentence that begins with the field."""
    return _invalid(Reason.INVALID_VIDEO, field, fault)


def video_too_large(
    field: str, unit: str, actual: float, limit: float, *, setting: str
) -> InvalidRequest:
    """The error for a video above a limit; `unit` is what is counted, `setting` what bounds it."""
    return _too_large(Reason.VIDEO_TOO_LARGE, field, unit, actual, limit, f" ({setting})")


def invalid_pdf(field: str, fault: str) -> InvalidRequest:
    """The error for a damaged PDF; `fault` continues a sentence that begins with the field."""
    return _invalid(Reason.INVALID_PDF, field, fault)


def pdf_too_large(
    field: str, unit: str, actual: int, limit: int, *, setting: str
) -> InvalidRequest:
    """The error for a PDF above a limit; `unit` is what is counted, `setting` what bounds it."""
    return _too_large(Reason.PDF_TOO_LARGE, field, unit, actual, limit, f" ({setting})")


def _invalid(reason: Reason, field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {fault}", reason=reason, param=field)


def _too_large(
    reason: Reason, field: str, unit: str, actual: float, limit: float, named: str
) -> InvalidRequest:
    """`named` says in brackets which setting bounds it, or nothing."""
    return InvalidRequest(
        f"{field} has {_counted(actual)} {unit}, expected at most {_counted(limit)}{named}",
        reason=reason,
        param=field,
    )


def _counted(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"
