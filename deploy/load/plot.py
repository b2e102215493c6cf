"""A load as a PNG: times of each answer over the run, and how they spread."""

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from deploy.load.figures import Figures
from deploy.load.records import Record

PANEL = (520, 340)  # of the inner area, pixels
LEFT, TOP, GAP, BOTTOM = 70, 68, 90, 70
INK, GRID, FIRST, WHOLE, FAILED = "#202020", "#dddddd", "#0072b2", "#e69f00", "#d55e00"
TICKS = 5

Point = tuple[float, float]


def write(path: Path, figures: Figures, records: Sequence[Record]) -> None:
    """Draws two panels: over the moment an answer was due, and the share of answers below a time.

    Raises:
        OSError: the file cannot be written.
    """
    size = (LEFT + 2 * PANEL[0] + GAP + 30, TOP + PANEL[1] + BOTTOM)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    whole = [record for record in records if record.answer.error is None]
    first = [(record.due_s, record.ttft_s) for record in whole if record.ttft_s is not None]
    ended = [(record.due_s, record.e2e_s) for record in whole]
    failed = [record.due_s for record in records if record.answer.error is not None]
    start = min((record.due_s for record in records), default=0.0)
    highest = max((seconds for _, seconds in ended), default=1.0) or 1.0
    length = max((record.due_s - start for record in records), default=0.0) or 1.0

    over = _Panel(draw, LEFT, x=length, y=highest, x_name="due after, s", y_name="time, s")
    over.dots([(due - start, seconds) for due, seconds in ended], WHOLE)
    over.dots([(due - start, seconds) for due, seconds in first], FIRST)
    over.dots([(due - start, 0.0) for due in failed], FAILED)
    share = _Panel(
        draw, LEFT + PANEL[0] + GAP, x=highest, y=1.0, x_name="time, s", y_name="share of answers"
    )
    share.line(_shares([seconds for _, seconds in ended]), WHOLE)
    share.line(_shares([seconds for _, seconds in first]), FIRST)
    _legend(draw, figures)
    image.save(path, "PNG")


def _shares(seconds: Sequence[float]) -> list[Point]:
    """Each time with the share of all that are no longer."""
    ordered = sorted(seconds)
    return [(value, (index + 1) / len(ordered)) for index, value in enumerate(ordered)]


def _legend(draw: ImageDraw.ImageDraw, figures: Figures) -> None:
    title = f"{figures.model}: {figures.answered} answers, {figures.requests_per_s:.2f} a second"
    draw.text((LEFT, 8), title, fill=INK, font_size=14)
    x = LEFT
    for name, colour in (("first token", FIRST), ("whole answer", WHOLE), ("failed", FAILED)):
        draw.rectangle((x, 32, x + 10, 42), fill=colour)
        draw.text((x + 16, 30), name, fill=INK, font_size=12)
        x += 120


class _Panel:
    """Axes from 0 to (x, y), with a grid; draws points of their scale."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        left: int,
        *,
        x: float,
        y: float,
        x_name: str,
        y_name: str,
    ) -> None:
        self._draw = draw
        self._at: Callable[[Point], Point] = lambda point: (
            left + point[0] / x * PANEL[0],
            TOP + PANEL[1] - point[1] / y * PANEL[1],
        )
        for tick in range(TICKS + 1):
            across, up = x * tick / TICKS, y * tick / TICKS
            draw.line((self._at((across, 0)), self._at((across, y))), fill=GRID)
            draw.line((self._at((0, up)), self._at((x, up))), fill=GRID)
            bottom, side = self._at((across, 0)), self._at((0, up))
            draw.text((bottom[0], bottom[1] + 6), f"{across:.3g}", fill=INK, anchor="mt")
            draw.text((side[0] - 6, side[1]), f"{up:.3g}", fill=INK, anchor="rm")
        middle = self._at((x / 2, 0))
        draw.text((middle[0], middle[1] + 28), x_name, fill=INK, anchor="mt", font_size=12)
        draw.text((left, TOP - 4), y_name, fill=INK, anchor="rb", font_size=12)

    def dots(self, points: Sequence[Point], colour: str) -> None:
        """Each point as a dot."""
        for x, y in map(self._at, points):
            self._draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)

    def line(self, points: Sequence[Point], colour: str) -> None:
        """Steps up at each point."""
        last = (0.0, 0.0)
        for point in points:
            corner = (point[0], last[1])
            steps = (self._at(last), self._at(corner), self._at(point))
            self._draw.line(steps, fill=colour, width=2)
            last = point
