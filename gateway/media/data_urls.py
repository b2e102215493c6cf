"""`data:` URLs, taken as browsers take them."""

import binascii
import re

from protos.media.limits import image_too_large, invalid_image
from protos.wire.errors import InvalidRequest

# The header of a real URL is short; looking no further keeps a hostile one from being copied.
MAX_HEADER_CHARS = 256

_BASE64 = re.compile(r";[ \t]*base64[ \t]*", re.IGNORECASE)
# What clients escape in base64 that they take for text: its three signs beside letters and
# digits, those of its URL-safe alphabet, and white space. Replacing them one by one takes no
# memory for each, as a general decoder does, of which a body may hold ten million.
_ESCAPES = {
    f"%{ord(sign):02{form}}".encode(): sign.encode() for sign in "+/=-_ \t\n\f\r" for form in "xX"
}
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\n\f\r"


def data_url_bytes(url: str, *, field: str, most: int | None) -> bytes:
    """The bytes in a `data:` URL in base64, whatever its media type and parameters.

    White space, missing padding, percent-encoding and the URL-safe alphabet are accepted.

    Args:
        url: Begins with "data:", in any case.
        field: Its place in the request, for errors.
        most: Most bytes of the result; a longer URL is not decoded. None: the request's size is
            all that bounds it.

    Raises:
        InvalidRequest: INVALID_IMAGE, not base64; IMAGE_TOO_LARGE.

    Source: the data: URL processor of the Fetch standard and the forgiving base64 decode of the
    Infra standard (WHATWG); the URL-safe alphabet is an addition.
    """
    comma = url.find(",", 0, MAX_HEADER_CHARS)
    if comma < 0 or not _BASE64.fullmatch(url, max(0, url.rfind(";", 0, comma)), comma):
        raise invalid_image(field, "has a data: URL that is not base64")
    try:
        text = _cleaned(url[comma + 1 :].encode("ascii"))
    except UnicodeEncodeError as error:
        raise _damaged(field) from error
    if b"=" in text:  # Python's strict mode lets surplus padding pass
        raise _damaged(field)
    size = len(text) * 3 // 4
    if most is not None and size > most:
        raise image_too_large(field, "bytes", size, most)
    try:
        return binascii.a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error as error:
        raise _damaged(field) from error


def _cleaned(text: bytes) -> bytes:
    """Base64 in its plain alphabet, without white space and padding."""
    if b"%" in text:
        for escape, sign in _ESCAPES.items():
            text = text.replace(escape, sign)
    text = text.translate(_URL_SAFE, delete=_WHITE_SPACE)
    padding = len(text) - len(text.rstrip(b"="))
    # Right padding fills groups of four; any other stays.
    return text[:-padding] if len(text) % 4 == 0 and 0 < padding < 3 else text


def _damaged(field: str) -> InvalidRequest:
    return invalid_image(field, "has a data: URL that is not valid base64")
