"""Questions about pictures drawn with Pillow's plain calls, not by the demonstration's drawer.

Colours are the CSS names', shapes are Pillow's ellipses, rectangles and polygons, texts are set
in Pillow's own font, and everything lies anywhere. Only the sizes are those that the model's card
promises: things of 40 pixels and characters 34 pixels apart, once the picture is resized.
"""

import io
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tests.demo_model.drawing import Rgb, contrast
from tests.demo_model.held_out import Question
from tests.demo_model.pictures import resized
from tests.demo_model.questions import CLEAR, Turn, article

COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white", "gray")
SHAPES = ("circle", "square", "triangle", "star", "cross")
GROUNDS = ("white", "black", "lightgray", "beige", "navy", "lightblue")
SIZES = ((224, 224), (256, 256), (320, 240), (336, 336), (400, 300), (512, 512), (300, 400))
# What lies there, on which axis, in which direction.
SIDES = (("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1))
LEAST_CONTRAST = 105.0
LEAST_INK_CONTRAST = 250.0
THING_PIXELS, PITCH_PIXELS = 42.0, 36.0  # as seen
ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Mark:
    """One shape in a picture; all lengths in pixels."""

    color: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def name(self) -> str:
        """The mark in words, such as `red circle`."""
        return f"{self.color} {self.shape}"

    @property
    def place(self) -> tuple[float, float]:
        """Its middle."""
        return self.x, self.y


class Canvas:
    """An empty picture of a random size and ground."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ground = rgb_of(rng.choice(GROUNDS))
        self.image = Image.new("RGB", rng.choice(SIZES), self.ground)
        self.draw = ImageDraw.Draw(self.image)
        seen_height, seen_width = resized(self.image.height, self.image.width)
        # Pixels drawn for each pixel seen.
        self.scale = max(self.image.width / seen_width, self.image.height / seen_height)

    def finished(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """The pixels, [H, W, 3], now and then after JPEG."""
        image = self.image
        if self.rng.random() < 0.4:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=self.rng.choice((75, 85, 95)))
            image = Image.open(file)
        return np.asarray(image)


def rgb_of(name: str) -> Rgb:
    """A CSS colour."""
    red, green, blue = ImageColor.getrgb(name)[:3]
    return red, green, blue


def paint(draw: ImageDraw.ImageDraw, mark: Mark) -> None:
    """Draws a mark."""
    x, y, r, fill = mark.x, mark.y, mark.radius, rgb_of(mark.color)
    if mark.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif mark.shape == "square":
        draw.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
    elif mark.shape == "triangle":
        draw.polygon([(x, y - r), (x - r, y + 0.8 * r), (x + r, y + 0.8 * r)], fill=fill)
    elif mark.shape == "star":
        turns = [(i * math.pi / 5, r if i % 2 == 0 else 0.45 * r) for i in range(10)]
        draw.polygon([(x + q * math.sin(a), y - q * math.cos(a)) for a, q in turns], fill=fill)
    else:
        draw.rectangle((x - r / 3, y - r, x + r / 3, y + r), fill=fill)
        draw.rectangle((x - r, y - r / 3, x + r, y + r / 3), fill=fill)


def scatter(rng: random.Random, count: int) -> tuple[Canvas, list[Mark]]:
    """A picture of so many marks, none upon another."""
    while True:
        canvas = Canvas(rng)
        colors = [c for c in COLORS if contrast(rgb_of(c), canvas.ground) >= LEAST_CONTRAST]
        marks: list[Mark] = []
        width, height = canvas.image.size
        least = THING_PIXELS / 2 * canvas.scale
        for _ in range(ATTEMPTS):
            r = rng.uniform(least, max(least, (0.3 if count < 3 else 0.2) * min(width, height)))
            x, y = rng.uniform(r + 2, width - r - 2), rng.uniform(r + 2, height - r - 2)
            if all(math.hypot(x - m.x, y - m.y) > 1.45 * (r + m.radius) for m in marks):
                marks.append(Mark(rng.choice(colors), rng.choice(SHAPES), x, y, r))
            if len(marks) == count:
                for mark in marks:
                    paint(canvas.draw, mark)
                return canvas, marks


def lone(rng: random.Random, kind: str) -> tuple[Canvas, Mark]:
    """A picture with a mark that is the only one of its `color` or `shape`."""
    while True:
        canvas, marks = scatter(rng, rng.randint(1, 3))
        kinds = [getattr(mark, kind) for mark in marks]
        if kinds.count(kinds[0]) == 1:
            return canvas, marks[0]


def about_color(rng: random.Random) -> Question:
    """`What color is the circle?`"""
    canvas, mark = lone(rng, "shape")
    return asked(canvas, f"What color is the {mark.shape}?", mark.color)


def about_shape(rng: random.Random) -> Question:
    """`What shape is red?`"""
    canvas, mark = lone(rng, "color")
    return asked(canvas, f"What shape is {mark.color}?", mark.shape)


def about_place(rng: random.Random) -> Question:
    """`What is left of the blue square?`"""
    canvas, marks = scatter(rng, 3)
    anchor, *others = marks
    side, axis, sign = rng.choice(SIDES)
    size = canvas.image.size[axis]
    reach = [sign * (other.place[axis] - anchor.place[axis]) / size for other in others]
    there = [other for other, share in zip(others, reach, strict=True) if share > 0]
    names = {mark.name for mark in marks}
    if len(there) != 1 or len(names) < 3 or min(map(abs, reach)) < CLEAR:
        return about_place(rng)
    return asked(canvas, f"What is {side} the {anchor.name}?", there[0].name)


def about_everything(rng: random.Random) -> Question:
    """`Describe the picture.`"""
    canvas, marks = scatter(rng, rng.randint(1, 2))
    marks.sort(key=lambda mark: mark.x)
    if marks[-1].x - marks[0].x < CLEAR * canvas.image.width and len(marks) > 1:
        return about_everything(rng)
    names = " and ".join(article(mark.name) for mark in marks)
    return asked(canvas, "Describe the picture.", f"The picture shows {names}.")


def about_number(rng: random.Random) -> Question:
    """`How many shapes are there?`"""
    canvas, marks = scatter(rng, rng.randint(1, 5))
    return asked(canvas, "How many shapes are there?", str(len(marks)))


def about_presence(rng: random.Random) -> Question:
    """`Is there a green star?`"""
    canvas, marks = scatter(rng, rng.randint(1, 3))
    names = [mark.name for mark in marks]
    is_there = rng.random() < 0.5
    name = names[0] if is_there else f"{rng.choice(COLORS)} {rng.choice(SHAPES)}"
    if (name in names) is not is_there:
        return about_presence(rng)
    return asked(canvas, f"Is there {article(name)}?", "yes" if is_there else "no")


def about_text(rng: random.Random) -> Question:
    """`Read the number.`"""
    canvas = Canvas(rng)
    width, height = canvas.image.size
    text = "".join(rng.choice("0123456789") for _ in range(rng.choice((3, 4))))
    unit = ImageFont.load_default(100)
    pitch = min(unit.getlength(character) for character in text) / 100
    least = PITCH_PIXELS * canvas.scale / pitch
    most = 0.94 * width / (unit.getlength(text) / 100)
    if most < least:
        return about_text(rng)
    font = ImageFont.load_default(math.ceil(rng.uniform(least, min(most, 1.4 * least))))
    left, top, right, bottom = font.getbbox(text)
    x = rng.uniform(2, max(2, width - (right - left) - 2))
    y = rng.uniform(4, max(4, height - (bottom - top) - 4))
    is_bright = contrast((0, 0, 0), canvas.ground) > LEAST_INK_CONTRAST
    canvas.draw.text((x - left, y - top), text, font=font, fill="black" if is_bright else "white")
    return asked(canvas, "Read the number.", text)


def about_three(rng: random.Random) -> Question:
    """`Which picture shows a cross?`"""
    scenes = [scatter(rng, 1) for _ in range(3)]
    shapes = [marks[0].shape for _, marks in scenes]
    place = rng.randrange(3)
    if shapes.count(shapes[place]) > 1:
        return about_three(rng)
    turn = Turn("which", f"Which picture shows a {shapes[place]}?", f"Picture {place + 1}")
    return Question((turn,), tuple(canvas.finished() for canvas, _ in scenes))


def asked(canvas: Canvas, question: str, answer: str) -> Question:
    """A question about one picture."""
    return Question((Turn("plain", question, answer),), (canvas.finished(),))


MAKERS: Mapping[str, Callable[[random.Random], Question]] = {
    "color": about_color,
    "shape": about_shape,
    "count": about_number,
    "yes_no": about_presence,
    "spatial": about_place,
    "describe": about_everything,
    "read": about_text,
    "which": about_three,
}


def questions(skill: str, count: int) -> list[Question]:
    """So many questions of a skill, always the same ones."""
    rng = random.Random(f"plain pictures {skill}")
    return [MAKERS[skill](rng) for _ in range(count)]
