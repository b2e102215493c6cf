"""Encoded images become upright RGB on white, or are refused; never anything else."""

import io
import random
import resource
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from protos.media.formats import UNSUPPORTED
from protos.wire.errors import InvalidRequest, Reason
from vision_service.media.images import ImageLimits, RgbArray, checked_header, decode_rgb

LIMITS = ImageLimits()
LOSSLESS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "BMP": {},
}


def noise(height: int = 7, width: int = 5, channels: int = 3, seed: int = 0) -> RgbArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def decode(data: bytes, limits: ImageLimits) -> RgbArray:
    return decode_rgb(data, checked_header(data, limits))


def reason_of(data: bytes, limits: ImageLimits = LIMITS) -> Reason:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, limits)
    with pytest.raises(InvalidRequest):
        checked_header(data, limits)
    assert caught.value.param == "image"
    return caught.value.reason


@pytest.mark.parametrize("name", sorted(LOSSLESS))
def test_a_lossless_image_decodes_to_its_own_pixels(name: str) -> None:
    pixels = noise()
    data = encoded(Image.fromarray(pixels), name, **LOSSLESS[name])
    assert np.array_equal(decode(data, LIMITS), pixels)
    assert checked_header(data, LIMITS).format == name


def test_a_jpeg_decodes_as_pillow_decodes_it() -> None:
    data = encoded(Image.fromarray(noise(40, 30)), "JPEG", quality=90)
    assert np.array_equal(decode(data, LIMITS), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_only_the_first_frame_of_an_animation_is_used(name: str) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if name == "WEBP" else {}
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)
    assert (decode(data, LIMITS) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_an_exif_orientation_gives_the_image_rotated_beforehand(
    name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {} if name == "PNG" else {"lossless": True, "quality": 95}
    data = encoded(Image.fromarray(noise(16, 24)), name, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data, LIMITS), np.asarray(upright.convert("RGB")))
    assert decode(data, LIMITS).shape[0] == (16 if orientation < 5 else 24)


def test_the_reported_size_is_the_upright_one() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(noise(16, 24)), "PNG", exif=exif)
    header = checked_header(data, LIMITS)
    assert (header.width, header.height) == (16, 24)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"", b"\xff" * 40, b"Exif\0\0MM\0*\0\0\xff"])
def test_an_unreadable_exif_block_is_ignored(exif: bytes) -> None:
    data = encoded(Image.fromarray(noise()), "WEBP", lossless=True, exif=exif)
    assert np.array_equal(decode(data, LIMITS), noise())


def rgba() -> Image.Image:
    pixels = np.dstack([noise(), np.array([0, 128, 255, 1, 254] * 7, np.uint8).reshape(7, 5)])
    return Image.fromarray(pixels)


def on_white(image: Image.Image) -> RgbArray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_an_alpha_channel_is_flattened_on_white(name: str) -> None:
    data = encoded(rgba(), name, **LOSSLESS[name])
    assert np.array_equal(decode(data, LIMITS), on_white(rgba()))


def test_grey_with_alpha_is_flattened_on_white() -> None:
    image = rgba().convert("LA")
    assert np.array_equal(decode(encoded(image, "PNG"), LIMITS), on_white(image))


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_a_transparent_palette_entry_becomes_white(name: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    data = encoded(image, name, transparency=0)
    assert decode(data, LIMITS).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_half_transparent_palette_entries_are_blended_with_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=bytes([128, 255]))
    assert decode(data, LIMITS).tolist() == [[[255, 127, 127], [0, 0, 255]]]


@pytest.mark.parametrize(("mode", "transparent"), [("L", 10), ("RGB", (10, 10, 10))])
def test_a_transparent_colour_becomes_white(mode: str, transparent: Any) -> None:
    image = Image.new(mode, (2, 1), transparent)
    image.putpixel((1, 0), 20 if mode == "L" else (20, 20, 20))
    data = encoded(image, "PNG", transparency=transparent)
    assert decode(data, LIMITS).tolist() == [[[255] * 3, [20] * 3]]


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    values = np.array([[0, 255, 256, 1000, 32768, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    assert decode(data, LIMITS)[..., 0].tolist() == [[0, 0, 1, 3, 128, 255]]


def test_a_transparent_sixteen_bit_grey_becomes_white() -> None:
    plain = encoded(Image.fromarray(np.array([[300, 513]], dtype=np.uint16)), "PNG")
    chunk = b"tRNS" + struct.pack(">H", 300)
    chunk = struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk))
    place = plain.index(b"IDAT") - 4
    data = plain[:place] + chunk + plain[place:]
    assert decode(data, LIMITS)[..., 0].tolist() == [[255, 2]]


def test_one_bit_and_cmyk_images_become_rgb() -> None:
    checks = Image.fromarray(np.eye(4, dtype=bool))
    expected = np.repeat(np.eye(4, dtype=np.uint8)[..., None] * 255, 3, axis=2)
    assert np.array_equal(decode(encoded(checks, "PNG"), LIMITS), expected)
    cmyk = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG", quality=95)
    assert (decode(cmyk, LIMITS) == 255).all()


@pytest.mark.parametrize(
    "data",
    [
        b"SIMPLE  =                    T",
        encoded(Image.new("RGB", (4, 4)), "TIFF"),
        encoded(Image.new("RGB", (4, 4)), "ICO"),
        encoded(Image.new("RGB", (4, 4)), "PPM"),
        b"8BPS\0\1" + bytes(40),
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\0\0\0\x18ftypheic",
        b"RIFF\0\0\0\0WAVE",
        b"\0",
    ],
)
def test_any_other_format_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(data, LIMITS)
    assert caught.value.reason is Reason.UNSUPPORTED_MEDIA
    assert caught.value.message == f"image has an {UNSUPPORTED}"


def test_an_image_of_another_size_than_its_header_is_refused() -> None:
    header = checked_header(encoded(Image.fromarray(noise(8, 8)), "PNG"), LIMITS)
    with pytest.raises(InvalidRequest) as caught:
        decode_rgb(encoded(Image.fromarray(noise()), "PNG"), header)
    assert caught.value.reason is Reason.INVALID_IMAGE


def test_an_empty_image_is_refused() -> None:
    assert reason_of(b"") is Reason.INVALID_IMAGE


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_bare_signature_is_a_corrupt_image(name: str) -> None:
    data = encoded(Image.fromarray(noise(40, 30)), name)
    assert reason_of(data[:13]) is Reason.INVALID_IMAGE


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_image_cut_in_half_is_refused(name: str) -> None:
    data = encoded(Image.fromarray(noise(40, 30)), name)
    with pytest.raises(InvalidRequest) as caught:
        decode(data[: len(data) // 2], LIMITS)
    assert caught.value.reason is Reason.INVALID_IMAGE


def damaged(data: bytes, seed: int) -> bytes:
    chosen = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chosen.choice((1, 3, 20))):
        broken[chosen.randrange(len(broken))] ^= 1 << chosen.randrange(8)
    return bytes(broken[: chosen.choice((len(broken), chosen.randrange(len(broken))))])


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_damage_leads_to_a_refusal_or_a_image_and_nothing_else(name: str) -> None:
    source = rgba() if name in ("PNG", "WEBP") else Image.fromarray(noise(33, 41))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if name in ("GIF", "BMP") else {"exif": exif}
    data = encoded(source, name, **options)
    for seed in range(200):
        try:
            pixels = decode(damaged(data, seed), LIMITS)
        except InvalidRequest as error:
            assert "0x" not in error.message
            assert "BytesIO" not in error.message
        else:
            assert pixels.dtype == np.uint8
            assert pixels.shape[2] == 3


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"]), st.binary())
def test_random_bytes_after_a_signature_are_never_an_unknown_error(
    head: bytes, tail: bytes
) -> None:
    try:
        decode(head + tail, LIMITS)
    except InvalidRequest:
        pass


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body
    data = zlib.compress(bytes(100_000))
    chunk = b"IDAT" + data
    return (
        header
        + struct.pack(">I", zlib.crc32(body))
        + struct.pack(">I", len(data))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
    )


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_header(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_header(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_header(width: int, height: int) -> bytes:
    data = bytearray(encoded(rgba(), "WEBP", exif=Image.Exif().tobytes() + b"x"))
    assert data[12:16] == b"VP8X"
    data[24:27] = (width - 1).to_bytes(3, "little")
    data[27:30] = (height - 1).to_bytes(3, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "bomb",
    [
        png_header(50_000, 50_000),
        png_header(8_100, 8_100),  # just above the default limit
        png_header(2**31 - 1, 2**31 - 1),
        jpeg_header(65_500, 65_500),
        gif_header(65_535, 65_535),
        bmp_header(40_000, 40_000),
        webp_header(16_383, 16_383),
        webp_header(2**24, 2**24),
    ],
)
def test_a_bomb_is_refused_by_its_pixel_count_without_being_decoded(bomb: bytes) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidRequest) as caught:
        decode(bomb, LIMITS)
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE
    assert "pixels" in caught.value.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


def test_a_long_thin_image_is_refused() -> None:
    thin = encoded(Image.new("L", (201, 1)), "PNG")
    assert reason_of(thin) is Reason.INVALID_IMAGE
    assert decode(encoded(Image.new("L", (200, 1)), "PNG"), LIMITS).shape == (1, 200, 3)


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    data = encoded(Image.fromarray(noise()), "PNG")
    assert reason_of(data, ImageLimits(max_bytes=len(data) - 1)) is Reason.IMAGE_TOO_LARGE
    assert decode(data, ImageLimits(max_bytes=len(data))).shape == (7, 5, 3)


def test_the_pixel_limit_is_inclusive() -> None:
    data = encoded(Image.fromarray(noise()), "PNG")
    assert decode(data, ImageLimits(max_pixels=35)).shape == (7, 5, 3)
    assert reason_of(data, ImageLimits(max_pixels=34)) is Reason.IMAGE_TOO_LARGE
