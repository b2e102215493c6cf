"""What both tiers believe of an image file; malformed ones are in the tests of either."""

import binascii
import io
import struct
import tracemalloc

import pytest
from PIL import Image

from protos.media.formats import FORMATS, UNSUPPORTED, open_image, orientation_of, read_header
from protos.wire.errors import InvalidRequest, Reason

NAMES = [kind.name for kind in FORMATS]


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def fault(data: bytes) -> Reason:
    with pytest.raises(InvalidRequest) as caught:
        read_header(data, field="image")
    return caught.value.reason


@pytest.mark.parametrize("name", NAMES)
def test_no_file_has_the_signature_of_two_formats(name: str) -> None:
    data = encoded(Image.new("RGB", (37, 21)), name)
    assert read_header(data, field="image").format == name
    assert f" {name}" in UNSUPPORTED


def large_webp() -> bytearray:
    data = bytearray(encoded(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", exif=b"Exif\0\0MM"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (16_000).to_bytes(3, "little") * 2
    return data


def test_a_webp_is_refused_by_its_canvas_and_one_cut_in_its_canvas_as_damaged() -> None:
    data = bytes(large_webp())
    assert fault(data) is Reason.IMAGE_TOO_LARGE
    # One byte less than the canvas takes: what is there already claims 16,000 x 16,000.
    assert fault(data[:29]) is Reason.INVALID_IMAGE
    assert fault(data[:30]) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_the_header_and_the_loaded_image_agree_on_the_orientation(
    name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (40, 20)), name, exif=exif)
    header = read_header(data, field="image")
    image = open_image(data, header)
    image.load()
    assert orientation_of(image) == orientation
    sides = image.size if orientation < 5 else image.size[::-1]
    assert (header.width, header.height) == sides


def test_the_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.new("RGB", (7, 5)), "PNG")
    assert read_header(data, field="image", max_pixels=35).width == 7
    with pytest.raises(InvalidRequest) as caught:
        read_header(data, field="image", max_pixels=34)
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE


def chunk(name: bytes, data: bytes) -> bytes:
    return (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", binascii.crc32(name + data))
    )


def with_chunk(png: bytes, name: bytes, data: bytes, *, late: bool = False) -> bytes:
    """The PNG with a chunk more, behind its header or behind its pixels."""
    at = len(png) - 12 if late else 33
    return png[:at] + chunk(name, data) + png[at:]


IDLE = [
    (b"tEXt", b"Comment\0" + b"x" * 9_000_000),
    (b"iTXt", b"Comment\0\0\0\0\0" + b"x" * 9_000_000),
    (b"zTXt", b"Comment\0\0" + b"x" * 9_000_000),
    (b"tEXt", b"Raw profile type exif\0" + b"x" * 9_000_000),
    (b"prVt", b"x" * 9_000_000),
    (b"teSt", b"x" * 9_000_000),
]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("name", "data"), IDLE)
def test_metadata_of_no_use_are_skipped_and_not_held(name: bytes, data: bytes, late: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    png = with_chunk(
        encoded(Image.new("RGB", (40, 20), "red"), "PNG", exif=exif), name, data, late=late
    )
    tracemalloc.start()
    try:
        header = read_header(png, field="image")
        image = open_image(png, header)
        image.load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (header.width, header.height) == (20, 40)
    assert orientation_of(image) == 6
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert peak < 1_000_000


def test_countless_empty_chunks_take_no_more_memory_than_the_file() -> None:
    png = encoded(Image.new("RGB", (40, 20), "red"), "PNG")
    empty = (chunk(b"IDAT", b"") + chunk(b"prVt", b"")) * 100_000
    many = png[:-12] + empty + png[-12:]
    tracemalloc.start()
    try:
        image = open_image(many, read_header(many, field="image"))
        image.load()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.getpixel((3, 3)) == (255, 0, 0)
    assert peak < 2 * len(many)
