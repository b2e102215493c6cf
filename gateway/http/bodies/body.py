"""Reading a request's body within limits, and JSON that is safe to parse."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pydantic_core

from gateway.request.deadlines import seconds_left
from protos.wire.errors import InvalidRequest, Reason, ServiceError

MAX_BODY_DEPTH = 64
# Far above any conversation that fits a context window; beyond it lies only parsing for its own
# sake (a body of nothing but brackets would take gigabytes once parsed).
MAX_BODY_QUOTES = 1_000_000
MAX_BODY_STRUCTURE_BYTES = 1024 * 1024
MAX_KEY_CHARS = 64  # of a key that an error names

_QUOTE = ord('"')

# NOTE: a string that never ends counts as one up to the body's end. Left unmatched, each quote in
# it would be tried as the beginning of another, which takes hours for a body of a few MiB.
_STRING_OR_BRACKET = re.compile(
    rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"?([ \t\r\n]*+:)?|[\[\]{}]', re.DOTALL
)


def body_size(content_length: str | None, *, limit: int) -> int | None:
    """The announced size of a body, or None; refused before a byte of it is read.

    Raises:
        InvalidRequest: REQUEST_TOO_LARGE, or not a number.
    """
    if content_length is None:
        return None
    if not (content_length.isascii() and content_length.isdecimal()):
        raise InvalidRequest("Content-Length must be a number", param=None)
    size = int(content_length) if len(content_length) < 19 else limit + 1
    if size > limit:
        raise too_large(limit)
    return size


async def read_body(
    chunks: AsyncIterator[bytes], *, limit: int, patience_s: float, by_s: float
) -> bytes:
    """All of a body.

    Args:
        chunks: Its pieces as they come.
        limit: Most bytes.
        patience_s: Longest wait for a piece, seconds.
        by_s: When all of it must be here, `time.monotonic()` seconds.

    Raises:
        InvalidRequest: REQUEST_TOO_LARGE.
        ServiceError: DEADLINE_EXCEEDED, the client is too slow.
    """
    pieces: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(min(patience_s, seconds_left(by_s))) as silence:
            async for piece in chunks:
                size += len(piece)
                if size > limit:
                    raise too_large(limit)
                pieces.append(piece)
                silence.reschedule(loop.time() + min(patience_s, seconds_left(by_s)))
    except TimeoutError as error:
        raise ServiceError(
            "the request's body came too slowly", reason=Reason.DEADLINE_EXCEEDED
        ) from error
    return b"".join(pieces)


def parse_json(body: bytes) -> Any:
    """Parses a body, after a look at how much work that is. Runs in a worker thread.

    Raises:
        InvalidRequest: not JSON, nested too deeply, too intricate, or an object with a key twice.
    """
    if body.count(b'"') > MAX_BODY_QUOTES:
        raise InvalidRequest("the body's JSON holds too many strings")
    _check_structure(body)
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest("the body is not valid JSON") from error


def _check_structure(body: bytes) -> None:
    """Checks size and depth of all but strings, and that no object has a key twice.

    Of two values of a key, readers differ in which one counts.
    """
    objects: list[set[str]] = []  # the keys of each object around; an array has none
    size = end = 0
    for match in _STRING_OR_BRACKET.finditer(body):
        size += match.start() - end
        end = match.end()
        first = body[match.start()]  # all of the match may be an image, too large to copy
        if first == _QUOTE:
            if match[2] is not None and objects:
                _add_key(objects[-1], match[1])
            continue
        size += 1
        if size > MAX_BODY_STRUCTURE_BYTES:
            break
        if first in b"[{":
            objects.append(set())
        else:
            del objects[-1:]
        if len(objects) > MAX_BODY_DEPTH:
            raise InvalidRequest(f"the body's JSON is nested deeper than {MAX_BODY_DEPTH} levels")
    if size + len(body) - end > MAX_BODY_STRUCTURE_BYTES:
        raise InvalidRequest("the body's JSON holds too many values")


def _add_key(keys: set[str], text: bytes) -> None:
    key = _key(text)
    if key in keys:
        shown = key[:MAX_KEY_CHARS]
        raise InvalidRequest(f"the body has the key {shown!r} twice in one object", param=shown)
    keys.add(key)


def _key(text: bytes) -> str:
    """A key by what it means, escapes resolved; malformed text stays, the parser refuses it."""
    try:
        return str(pydantic_core.from_json(b'"' + text + b'"'))
    except ValueError:
        return text.decode("latin-1")


def too_large(limit: int) -> InvalidRequest:
    """What a body of more bytes than that is answered with."""
    return InvalidRequest(f"the body is larger than {limit} bytes", reason=Reason.REQUEST_TOO_LARGE)
