"""A run as a PNG: what each role's processes hold over time, rests apart."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from tests.soak.census import OURS
from tests.soak.samples import Sample
from tests.soak.trend import MIB

WIDTH, ROW, LEFT, TOP, GAP = 900, 110, 130, 30, 22
INK, GRID, LOAD, REST, COUNT = "#202020", "#dddddd", "#9ecae1", "#0072b2", "#d55e00"

Point = tuple[float, float]


def draw(path: Path, samples: Sequence[Sample]) -> None:
    """Draws a row for each role: anonymous memory in MiB, and descriptors, each on its own scale.

    Raises:
        OSError: the file cannot be written.
    """
    roles = [role for role in OURS if any(role in each.held for each in samples)]
    image = Image.new("RGB", (WIDTH, TOP + len(roles) * (ROW + GAP) + 20), "white")
    canvas = ImageDraw.Draw(image)
    length = samples[-1].at_s or 1.0
    legend = (("MiB under load", LOAD), ("MiB at rest", REST), ("descriptors at rest", COUNT))
    for place, (name, colour) in enumerate(legend):
        canvas.rectangle((LEFT + place * 170, 8, LEFT + place * 170 + 10, 18), fill=colour)
        canvas.text((LEFT + place * 170 + 16, 6), name, fill=INK, font_size=12)
    for row, role in enumerate(roles):
        _row(canvas, samples, role, TOP + row * (ROW + GAP), length)
    bottom = TOP + len(roles) * (ROW + GAP) - GAP + 6
    for tick in range(7):
        x = LEFT + (WIDTH - LEFT - 60) * tick / 6
        canvas.text((x, bottom), f"{length * tick / 360:.0f} min", fill=INK, anchor="mt")
    image.save(path, "PNG")


def _row(
    canvas: ImageDraw.ImageDraw, samples: Sequence[Sample], role: str, top: float, length: float
) -> None:
    held = [(each.at_s, each.rest, each.held[role]) for each in samples if role in each.held]
    most = max(one.anonymous for _, _, one in held) / MIB * 1.1
    highest = max(one.descriptors for _, _, one in held) * 1.3
    right = WIDTH - 60

    def at(seconds: float, share: float) -> Point:
        return LEFT + (right - LEFT) * seconds / length, top + ROW * (1 - share)

    canvas.rectangle((LEFT, top, right, top + ROW), outline=GRID)
    canvas.text((8, top + 4), role, fill=INK, font_size=13)
    canvas.text((LEFT - 6, top), f"{most:.0f}", fill=REST, anchor="rt")
    canvas.text((LEFT - 6, top + ROW), "0", fill=INK, anchor="rb")
    canvas.text((right + 6, top), f"{highest:.0f}", fill=COUNT, anchor="lt")
    load = [at(s, one.anonymous / MIB / most) for s, rest, one in held if rest is None]
    canvas.line(load, fill=LOAD)
    for seconds, rest, one in held:
        if rest is not None:
            _dot(canvas, at(seconds, one.descriptors / highest), COUNT)
            _dot(canvas, at(seconds, one.anonymous / MIB / most), REST)


def _dot(canvas: ImageDraw.ImageDraw, point: Point, colour: str) -> None:
    x, y = point
    canvas.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
