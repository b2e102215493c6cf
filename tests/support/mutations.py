"""Damaged image files, as many as one likes: every format, changed at random."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

_EXTREMES = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00")
_FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("RGB", "PNG", {}),
    ("RGBA", "PNG", {}),
    ("P", "PNG", {"transparency": 3}),
    ("I;16", "PNG", {}),
    ("1", "PNG", {}),
    ("RGB", "JPEG", {}),
    ("RGB", "JPEG", {"progressive": True}),
    ("CMYK", "JPEG", {}),
    ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("P", "GIF", {}),
    ("RGB", "BMP", {}),
    ("P", "BMP", {}),
)

Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def originals() -> list[bytes]:
    """Small images of every format, sound."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 45, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = []
    for mode, kind, options in _FORMATS:
        image = Image.fromarray(noise)
        buffer = io.BytesIO()
        held = {} if kind in ("GIF", "BMP") else {"exif": exif}
        shown = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
        shown.save(buffer, kind, **options, **held)
        made.append(buffer.getvalue())
    return made


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """So many damaged files; the same for the same seed."""
    random = np.random.default_rng(seed)
    sound = originals()
    for number in range(count):
        data = bytearray(sound[number % len(sound)])
        for _ in range(random.integers(1, 5)):
            data = _MUTATIONS[random.integers(len(_MUTATIONS))](data, random)
        yield bytes(data)


def _place(data: bytearray, random: np.random.Generator) -> int:
    """Half of the damage hits the first bytes, where headers are."""
    end = len(data) if random.random() < 0.5 else min(len(data), 128)
    return int(random.integers(max(end, 1)))


def _flip(data: bytearray, random: np.random.Generator) -> bytearray:
    for _ in range(random.integers(1, 9)):
        if data:
            data[_place(data, random)] ^= 1 << int(random.integers(8))
    return data


def _overwrite(data: bytearray, random: np.random.Generator) -> bytearray:
    place = _place(data, random)
    data[place : place + 4] = _EXTREMES[random.integers(len(_EXTREMES))]
    return data


def _cut(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: _place(data, random)]


def _drop(data: bytearray, random: np.random.Generator) -> bytearray:
    place = _place(data, random)
    del data[place : place + int(random.integers(1, 64))]
    return data


def _repeat(data: bytearray, random: np.random.Generator) -> bytearray:
    place = _place(data, random)
    part = data[place : place + int(random.integers(1, 512))]
    return data[:place] + part * int(random.integers(2, 9)) + data[place:]


def _noise(data: bytearray, random: np.random.Generator) -> bytearray:
    place = _place(data, random)
    return data[:place] + random.bytes(int(random.integers(1, 64))) + data[place:]


_MUTATIONS: tuple[Mutation, ...] = (_flip, _overwrite, _cut, _drop, _repeat, _noise)
