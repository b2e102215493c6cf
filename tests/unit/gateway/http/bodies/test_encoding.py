"""Bodies that come compressed."""

import gzip
import tracemalloc
import zlib

import pytest

from gateway.http.bodies.encoding import content_encoding, decoded
from protos.wire.errors import InvalidRequest, Reason

BODY = b'{"messages": []}' * 100


def fault(body: bytes, encoding: str = "gzip", limit: int = 10_000) -> Reason:
    with pytest.raises(InvalidRequest) as caught:
        decoded(body, encoding, limit=limit)
    return caught.value.reason


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (BODY, ""),
        (gzip.compress(BODY, mtime=0), "gzip"),
        (gzip.compress(BODY[:70], mtime=0) + gzip.compress(BODY[70:], mtime=0), "gzip"),
        (zlib.compress(BODY), "deflate"),
        (raw_deflate(BODY), "deflate"),
    ],
)
def test_a_body_is_decoded(packed: bytes, encoding: str) -> None:
    assert decoded(packed, encoding, limit=len(BODY)) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_limit_holds_for_what_is_decoded(encoding: str) -> None:
    packed = gzip.compress(BODY, mtime=0) if encoding == "gzip" else zlib.compress(BODY)
    assert fault(packed, encoding, limit=len(BODY) - 1) is Reason.REQUEST_TOO_LARGE


def test_a_bomb_is_left_unexploded() -> None:
    bomb = gzip.compress(bytes(100_000_000)) * 20
    tracemalloc.start()
    try:
        assert fault(bomb, limit=1_000_000) is Reason.REQUEST_TOO_LARGE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(bomb) + 3_000_000


@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (b"", "gzip"),
        (b"not packed", "gzip"),
        (b"not packed", "deflate"),
        (gzip.compress(BODY, mtime=0)[:-1], "gzip"),
        (gzip.compress(BODY, mtime=0) + b"more", "gzip"),
        (zlib.compress(BODY)[:-1], "deflate"),
        (zlib.compress(BODY) + b"more", "deflate"),
    ],
)
def test_what_is_damaged_or_cut_is_refused(packed: bytes, encoding: str) -> None:
    assert fault(packed, encoding) is Reason.INVALID_PARAMETER


@pytest.mark.parametrize(
    ("headers", "encoding"),
    [
        ([], ""),
        (["identity"], ""),
        (["GZip "], "gzip"),
        (["x-gzip"], "gzip"),
        (["deflate"], "deflate"),
    ],
)
def test_known_encodings_have_one_name(headers: list[str], encoding: str) -> None:
    assert content_encoding(headers) == encoding


@pytest.mark.parametrize("headers", [["br"], ["zstd"], ["gzip, gzip"], ["gzip", "deflate"], ["x"]])
def test_other_encodings_are_refused_by_name(headers: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        content_encoding(headers)
    assert caught.value.reason is Reason.UNSUPPORTED_ENCODING
    assert ", ".join(headers) in caught.value.message
