"""Bodies that come compressed, decoded without ever holding more than a body may have."""

import zlib
from collections.abc import Sequence

from gateway.http.bodies.body import too_large
from protos.wire.errors import InvalidRequest, Reason

ACCEPTED = ("gzip", "deflate")

_ALIASES = {"x-gzip": "gzip", "identity": ""}
_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


def content_encoding(headers: Sequence[str]) -> str:
    """The encoding that the Content-Encoding headers name: one of ACCEPTED, or "" for none.

    Raises:
        InvalidRequest: UNSUPPORTED_ENCODING, any other, or several on top of each other.
    """
    name = ", ".join(headers).strip().lower()
    name = _ALIASES.get(name, name)
    if name and name not in ACCEPTED:
        raise InvalidRequest(
            f"the Content-Encoding {name[:64]!r} is not supported, expected gzip or deflate",
            reason=Reason.UNSUPPORTED_ENCODING,
        )
    return name


def decoded(body: bytes, encoding: str, *, limit: int) -> bytes:
    """A body as it was before it was compressed. Runs in a worker thread.

    Args:
        body: What came.
        encoding: As `content_encoding` returns it.
        limit: Most bytes of the result; decoding stops there.

    Raises:
        InvalidRequest: REQUEST_TOO_LARGE, or the body is damaged or cut.
    """
    if not encoding:
        return body
    pieces: list[bytes] = []
    size = 0
    while body or not pieces:
        decoder = zlib.decompressobj(_window(body, encoding))
        try:
            pieces.append(decoder.decompress(body, limit - size + 1))
        except zlib.error as error:
            raise _damaged(encoding) from error
        size += len(pieces[-1])
        if size > limit:
            raise too_large(limit)
        if not decoder.eof:
            raise _damaged(encoding)
        body = decoder.unused_data  # gzip may have several members, one after the other
        if body and encoding != "gzip":
            raise _damaged(encoding)
    return b"".join(pieces)


def _window(body: bytes, encoding: str) -> int:
    """zlib's word for the format; "deflate" means zlib's, but some clients send it bare."""
    if encoding == "gzip":
        return _GZIP
    is_zlib = (
        len(body) > 1 and body[0] & 0xF == zlib.DEFLATED and (body[0] << 8 | body[1]) % 31 == 0
    )
    return _ZLIB if is_zlib else _RAW


def _damaged(encoding: str) -> InvalidRequest:
    return InvalidRequest(f"the body is not valid {encoding}")
