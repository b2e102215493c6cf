"""Image URLs, headers and limits: everything is refused before a pixel is decoded."""

import base64
import io
import random
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, ImageOps

from gateway.media.images import (
    ImageSource,
    MediaLimits,
    PlannedImage,
    TierLimits,
    image_bytes,
    plan_images,
)
from gateway.media.sizing import Detail, ImageSizing
from protos.media.formats import ImageHeader, read_header
from protos.media.images import Grid, ImageSettings
from protos.media.limits import MAX_IMAGE_PIXELS
from protos.wire.errors import InvalidRequest, Reason
from tests.support.prompts import encoded, png

FIELD = "messages[0].content[1]"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SETTINGS = ImageSettings(
    patch_size=16,
    temporal_patch_size=2,
    merge_size=2,
    min_pixels=4096,
    max_pixels=1 << 24,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    rescale_factor=1 / 255,
)
KEY = bytes(32)


def data_url(data: bytes, head: str = "data:image/png;base64,") -> str:
    return head + base64.b64encode(data).decode()


def url_fault(url: str, most: int | None = None) -> Reason:
    with pytest.raises(InvalidRequest) as caught:
        image_bytes(url, field=FIELD, most=most)
    assert caught.value.param == FIELD
    return caught.value.reason


def header_fault(data: bytes, max_pixels: int = 40_000_000) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_header(data, field=FIELD, max_pixels=max_pixels)
    assert caught.value.param == FIELD
    return caught.value


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;base64,",
        "data:;base64,",
        "DATA:application/octet-stream;charset=x;BASE64,",
        "data:video/mp4;base64,",
    ],
)
def test_data_urls_are_decoded_whatever_their_media_type(head: str) -> None:
    assert image_bytes(data_url(b"\x00\xffabc", head), field=FIELD) == b"\x00\xffabc"


def test_every_other_url_is_refused_with_the_same_words() -> None:
    urls = (
        *("http://example.com/a.png", "https://127.0.0.1/", "file:///etc/passwd", "ftp://a/b"),
        *("gopher://a", "javascript:alert(1)", r"\\host\share\a.png", "", " data:,", "dat"),
    )
    messages = set()
    for url in urls:
        with pytest.raises(InvalidRequest) as caught:
            image_bytes(url, field=FIELD)
        assert caught.value.reason is Reason.URL_NOT_ALLOWED
        messages.add(caught.value.message)
    assert len(messages) == 1


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,abc",
        "data:image/png;base64",
        "data:image/png;base64,a",
        "data:image/png;base64,ab=c",
        "data:image/png;base64,abc\v",
        "data:image/png;base64,ab%3Dc",
        "data:image/png;base64,abcd%",
        "data:image/png;base64,abcd%00",
        "data:image/png;base64,abcd===",
        "data:image/png;base64,ab=",
        "data:image/png;base64x,abcd",
        "data:image/png;base64;charset=x,abcd",
        "data:base64,abcd",
        "data:image/png;base64,éabc",
        "data:image/png;base64,abcd====",
        "data:" + "x" * 300 + ";base64,abcd",
    ],
)
def test_data_urls_that_browsers_would_not_take_are_refused(url: str) -> None:
    assert url_fault(url) is Reason.INVALID_IMAGE


def test_a_long_url_is_refused_by_its_length_before_it_is_decoded() -> None:
    assert image_bytes(data_url(b"123456789"), field=FIELD, most=9) == b"123456789"
    assert url_fault(data_url(b"1234567890"), 9) is Reason.IMAGE_TOO_LARGE
    # Not base64 at all, which decoding would have noticed first.
    assert url_fault("data:;base64," + "!" * 100, 9) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("form", FORMATS)
def test_the_five_formats_give_their_size(form: str) -> None:
    data = encoded(Image.new("RGB", (37, 21), (1, 2, 3)), form)
    assert read_header(data, field=FIELD) == ImageHeader(format=form, width=37, height=21)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_kind_of_webp_gives_its_size(mode: str, lossless: bool) -> None:
    data = encoded(Image.new(mode, (300, 20)), "WEBP", lossless=lossless)
    assert read_header(data, field=FIELD).width == 300


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_size_is_that_of_the_upright_image(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (40, 20)), form, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert upright is not None
    header = read_header(data, field=FIELD)
    assert (header.width, header.height) == upright.size
    assert (header.width > header.height) == (orientation < 5)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))


def test_orientation_behind_the_pixels_of_a_png_counts_without_decoding_them() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = png(40, 20)
    end = plain.index(b"IEND") - 4
    late = plain[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[end:]
    header = read_header(late, field=FIELD)
    assert (header.width, header.height) == (20, 40)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(late)))
    assert upright is not None
    assert upright.size == (20, 40)
    undecodable = claims_png(40, 20) + chunk(b"eXIf", exif.tobytes()[6:])
    assert read_header(undecodable, field=FIELD).width == 20


def test_damaged_exif_leaves_the_image_as_it_is() -> None:
    data = encoded(Image.new("RGB", (40, 20)), "JPEG", exif=b"Exif\0\0rubbish")
    assert read_header(data, field=FIELD).width == 40


@pytest.mark.parametrize(
    "start",
    [
        b"II*\0",
        b"MM\0*",
        b"8BPS",
        b"%!PS-Adobe",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\1\0",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\0\x18ftypheic",
        b"SIMPLE  =                    T",
        b"\0\0\0\x18ftypmp42",
        b"RIFF\0\0\0\0WAVE",
        b"hello",
    ],
)
def test_other_formats_are_refused_by_their_first_bytes(start: bytes) -> None:
    fault = header_fault(start + bytes(100))
    assert fault.reason is Reason.UNSUPPORTED_MEDIA
    assert "unsupported image format" in fault.message
    assert all(form in fault.message for form in FORMATS)


def test_an_empty_image_is_refused() -> None:
    assert header_fault(b"").reason is Reason.INVALID_IMAGE


def claims_png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))


def claims_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("L", (8, 8)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def claims_gif(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def claims_gif_frame(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    at = data.index(b"\x2c", 13)
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def claims_webp(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", exif=b"Exif\0\0MM"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def claims_bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


CLAIMS = (claims_png, claims_jpeg, claims_gif, claims_gif_frame, claims_webp, claims_bmp)


@pytest.mark.parametrize("side", [7_000, 12_000, 50_000, 65_500])
@pytest.mark.parametrize("claim", CLAIMS)
def test_bombs_are_refused_by_what_their_header_claims(claim: object, side: int) -> None:
    assert callable(claim)
    fault = header_fault(claim(side, side))
    assert fault.reason is Reason.IMAGE_TOO_LARGE
    assert "pixels" in fault.message


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_and_flipped_headers_never_raise_anything_else(form: str) -> None:
    whole = encoded(Image.new("RGB", (40, 30), (9, 90, 200)), form)
    chance = random.Random(form)
    for length in range(min(len(whole), 120)):
        answer_of(whole[:length])
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        answer_of(bytes(data))


def answer_of(data: bytes) -> None:
    try:
        header = read_header(data, field=FIELD)
    except InvalidRequest as fault:
        assert "0x" not in fault.message
        assert "BytesIO" not in fault.message
    else:
        assert header.width * header.height <= MAX_IMAGE_PIXELS


def plan(*sources: bytes, **limits: int) -> tuple[Grid, ...]:
    named = [
        ImageSource(f"messages[0].content[{index}]", data) for index, data in enumerate(sources)
    ]
    planned = plan_images(named, SETTINGS, limits=MediaLimits(**limits), digest_key=KEY)
    return tuple(image.grid for image in planned)


def plan_fault(*sources: bytes, **limits: int) -> tuple[Reason, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        plan(*sources, **limits)
    return caught.value.reason, caught.value.param


def test_images_of_a_request_are_planned_in_order() -> None:
    assert plan(png(300, 400), png(64, 64)) == (Grid(1, 24, 18), Grid(1, 4, 4))


def test_limits_of_a_request_name_the_image_that_breaks_them() -> None:
    small = png(64, 64)
    assert plan_fault(*[small] * 17) == (Reason.IMAGE_TOO_LARGE, "messages")
    assert plan_fault(small, max_image_bytes=10)[0] is Reason.IMAGE_TOO_LARGE
    assert plan_fault(small, small, max_request_bytes=len(small))[1] == "messages"
    fault = plan_fault(small, small, max_request_pixels=64 * 64 + 1)
    assert fault == (Reason.IMAGE_TOO_LARGE, "messages[0].content[1]")
    fault = plan_fault(small, png(4000, 10))
    assert fault == (Reason.INVALID_IMAGE, "messages[0].content[1]")


def sized(data: bytes, most_tokens: int | None = None, **sizing: Any) -> PlannedImage:
    source = ImageSource("x", data, ImageSizing(**sizing))
    limits = MediaLimits(max_image_tokens=most_tokens)
    (image,) = plan_images([source], SETTINGS, limits=limits, digest_key=KEY)
    return image


def test_the_lower_of_all_limits_applies() -> None:
    ours = MediaLimits(max_image_bytes=100, max_image_pixels=1000, max_image_tokens=300)
    assert ours.under((), merge_size=2) == ours
    low = TierLimits(max_image_bytes=99, max_image_pixels=1001, max_image_patches=1600)
    thin = TierLimits(max_image_bytes=101, max_image_pixels=999, max_image_patches=1000)
    assert ours.under((low, thin), merge_size=2) == MediaLimits(
        max_image_bytes=99, max_image_pixels=999, max_image_tokens=250
    )
    assert MediaLimits().under((low,), merge_size=2).max_image_tokens == 400


@pytest.mark.parametrize("claim", [claims_png, claims_jpeg])
@pytest.mark.parametrize("size", [(8064, 6048), (8160, 6120), (9248, 6936)])
def test_the_largest_photos_of_phones_are_taken(claim: Any, size: tuple[int, int]) -> None:
    image = sized(claim(*size), most_tokens=1280)
    assert (image.header.width, image.header.height) == size
    assert 1200 < image.token_count <= 1280


def test_an_image_of_another_size_has_another_digest() -> None:
    photo = png(1000, 800)
    low = sized(photo, detail=Detail.LOW)
    assert low.digest != sized(photo).digest
    assert low.digest == sized(photo, max_pixels=256 * 1024).digest


def test_digests_depend_on_bytes_and_key_only() -> None:
    def digest(data: bytes, key: bytes) -> bytes:
        limits = MediaLimits()
        source = ImageSource("x", data)
        (image,) = plan_images([source], SETTINGS, limits=limits, digest_key=key)
        return image.digest

    red, blue = png(64, 64), png(64, 64, colour=(0, 0, 250))
    assert digest(red, KEY) == digest(bytes(red), KEY)
    assert len({digest(red, KEY), digest(blue, KEY), digest(red, b"k" * 32)}) == 3
    assert len(digest(red, KEY)) == 32
