"""Draws what runs did over time: replicas, and the wait of every image, one row for each run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from tests.bench.autoscaling import Arrival, Run

WIDTH, ROW, LEFT, TOP = 900, 190, 46, 16
GREY, BLUE, RED, GREEN = "#999999", "#3366cc", "#cc3333", "#99bb99"


def draw(path: Path, runs: Sequence["Run"], arrivals: Sequence["Arrival"], seconds: float) -> None:
    """Writes a PNG.

    Args:
        path: Where to.
        runs: Each gets a row.
        arrivals: What came; drawn below in every row, images a second.
        seconds: Of the arrivals; what is drawn goes on for 0.4 of them.
    """
    image = Image.new("RGB", (WIDTH, TOP + len(runs) * (ROW + TOP)), "white")
    canvas = ImageDraw.Draw(image)
    longest = max((wait for run in runs for wait in run.waits()), default=1.0)
    end_s = 1.4 * seconds

    def x_of(at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * at_s / end_s

    for row, run in enumerate(runs):
        bottom = TOP + row * (ROW + TOP) + ROW - 14
        _axis(canvas, run, bottom, longest, x_of, end_s)
        _load(canvas, arrivals, bottom, x_of, end_s)
        height = ROW - 40
        most = max((asked for _, asked, _ in run.replicas), default=1)
        for value, colour in ((1, BLUE), (2, GREY)):
            points = [(x_of(one[0]), bottom - height * one[value] / most) for one in run.replicas]
            canvas.line([xy for xy in points if xy[0] < WIDTH], fill=colour, width=2)
        for at_s, wait_s, _ in run.ended:
            x, y = x_of(at_s), bottom - height * wait_s / longest
            canvas.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=RED)
    image.quantize(16).save(path, optimize=True)


def _axis(
    canvas: ImageDraw.ImageDraw,
    run: "Run",
    bottom: float,
    longest: float,
    x_of: Callable[[float], float],
    end_s: float,
) -> None:
    most = max((asked for _, asked, _ in run.replicas), default=1)
    text = (
        f"{run.name}: replicas asked for (blue) and running (grey), full height {most};"
        f" waits (red), full height {longest:.0f} s; images that come (green)"
    )
    canvas.text((LEFT, bottom - ROW + 16), text, fill="black")
    canvas.line((LEFT, bottom, WIDTH - 8, bottom), fill="black")
    for at_s in range(0, int(end_s), 20):
        canvas.text((x_of(at_s), bottom + 1), f"{at_s} s", fill="black")


def _load(
    canvas: ImageDraw.ImageDraw,
    arrivals: Sequence["Arrival"],
    bottom: float,
    x_of: Callable[[float], float],
    end_s: float,
) -> None:
    for at_s in range(int(end_s)):
        count = sum(1 for one in arrivals if at_s <= one.at_s < at_s + 1)
        if count:
            box = (x_of(at_s), bottom - 2 * count, x_of(at_s + 1) - 1, bottom)
            canvas.rectangle(box, fill=GREEN)
