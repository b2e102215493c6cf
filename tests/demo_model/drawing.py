"""Draws scenes of coloured shapes and printed text, and knows what it drew.

A scene is described in fractions of the canvas, so one description can be rendered at any
size. Rendering varies widely (anti-aliasing, outlines, rotation, textures, noise, JPEG), so
that a model trained on these pictures also holds for pictures that other code drew.
"""

import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white", "gray")
CHARACTERS = "0123456789ACDEHLNOPRST"

Point = tuple[float, float]
Box = tuple[float, float, float, float]
Rgb = tuple[int, int, int]
Pixels = NDArray[np.uint8]

# Hue in degrees, saturation and value of what counts as each colour.
COLOR_RANGES: dict[str, tuple[Point, Point, Point]] = {
    "red": ((-8, 5), (0.8, 1.0), (0.65, 1.0)),
    "green": ((92, 150), (0.55, 1.0), (0.4, 1.0)),
    "blue": ((208, 246), (0.65, 1.0), (0.5, 1.0)),
    "yellow": ((50, 61), (0.7, 1.0), (0.88, 1.0)),
    "orange": ((23, 39), (0.85, 1.0), (0.88, 1.0)),
    "purple": ((268, 302), (0.5, 1.0), (0.4, 0.85)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.12)),
    "white": ((0, 360), (0.0, 0.03), (0.95, 1.0)),
    "gray": ((0, 360), (0.0, 0.06), (0.42, 0.64)),
}
FONT_NAMES = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansCondensed.ttf",
    "DejaVuSansCondensed-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerifCondensed.ttf",
)
BUILT_IN_FONT = ""  # Pillow's own, present wherever Pillow is


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One coloured shape. Centre and radius are fractions of the canvas; see `Scene`."""

    shape: str
    color: str
    center: Point
    radius: float  # of the circumscribed circle, in units of the shorter canvas side
    rotation: float  # radians
    fullness: float  # arm width of a cross, inner radius of a star; unused otherwise
    rgb: Rgb
    outline: float | None  # line width over radius when only the outline is drawn
    edge: Rgb | None  # colour of a thin edge around a filled shape

    @property
    def name(self) -> str:
        """The thing in words, such as `red circle`."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Printed text. `left_top` and `size` are as in `Thing`: fractions of the canvas."""

    text: str
    left_top: Point
    size: float  # font size in units of the shorter canvas side
    font: str
    rgb: Rgb
    plate: Rgb | None  # colour of a rectangle behind the text

    @property
    def is_number(self) -> bool:
        """Whether the text is all digits."""
        return self.text.isdigit()

    @property
    def name(self) -> str:
        """The text in words, such as `number 4071`."""
        return f"{'number' if self.is_number else 'word'} {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """What lies behind the things: a colour and a texture around it."""

    rgb: Rgb
    texture: str
    strength: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything in one picture, independent of its size in pixels."""

    aspect: float  # width over height of the canvas it was composed for
    background: Background
    things: tuple[Thing, ...] = ()
    label: Label | None = None

    def with_things(self, things: Sequence[Thing]) -> "Scene":
        """The same scene with other things."""
        return replace(self, things=tuple(things))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a scene becomes pixels; none of it changes what the picture shows."""

    supersampling: int = 3
    noise: float = 0.0
    jpeg_quality: int | None = None
    seed: int = 0

    @classmethod
    def random(cls, rng: random.Random) -> "Finish":
        """A finish such as different programs leave."""
        return cls(
            supersampling=rng.choice((1, 2, 3, 4)),
            noise=rng.choice((0.0, 0.0, 0.0, rng.uniform(1, 8))),
            jpeg_quality=rng.randint(45, 95) if rng.random() < 0.35 else None,
            seed=rng.getrandbits(30),
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn picture with the scene that it shows."""

    scene: Scene
    pixels: Pixels = field(repr=False)


def color_of(rng: random.Random, name: str) -> Rgb:
    """A random shade of a named colour."""
    hue, saturation, value = (rng.uniform(*bounds) for bounds in COLOR_RANGES[name])
    return hsv(hue, saturation, value)


def hsv(hue: float, saturation: float, value: float) -> Rgb:
    """HSV (degrees, 0-1, 0-1) to 8-bit RGB."""

    def channel(n: int) -> int:
        k = (n + hue / 60) % 6
        return round(255 * (value - value * saturation * max(0.0, min(k, 4 - k, 1.0))))

    return channel(5), channel(3), channel(1)


def contrast(first: Rgb, second: Rgb) -> float:
    """Distance of two colours as an eye would roughly weigh it, 0 to 765."""
    return math.dist(
        (first[0] * 1.0, first[1] * 1.4, first[2] * 0.8),
        (second[0] * 1.0, second[1] * 1.4, second[2] * 0.8),
    )


def outline_of(thing: Thing) -> list[Point]:
    """Corners around the centre for a circumscribed radius of one (a circle has 48)."""
    if thing.shape == "circle":
        return ring(48, 0.0, (1.0,))
    if thing.shape == "square":
        return ring(4, thing.rotation + math.pi / 4, (1.0,))
    if thing.shape == "triangle":
        return ring(3, thing.rotation - math.pi / 2, (1.0,))
    if thing.shape == "star":
        return ring(10, thing.rotation - math.pi / 2, (1.0, thing.fullness))
    return cross_corners(thing.fullness, thing.rotation)


def ring(count: int, start: float, radii: Sequence[float]) -> list[Point]:
    """Points at equal angles, cycling through the radii."""
    return [
        (
            radii[i % len(radii)] * math.cos(start + 2 * math.pi * i / count),
            radii[i % len(radii)] * math.sin(start + 2 * math.pi * i / count),
        )
        for i in range(count)
    ]


def cross_corners(arm: float, rotation: float) -> list[Point]:
    """The twelve corners of a plus whose arms are `arm` wide, its reach being one."""
    a, b = arm / 2, 1.0
    corners = ((a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b))
    points = [*corners, *((-x, -y) for x, y in corners)]
    cos, sin = math.cos(rotation), math.sin(rotation)
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]


@lru_cache(maxsize=256)
def box_of(thing: Thing, aspect: float) -> Box:
    """The tight box of a thing as fractions of the canvas: left, top, right, bottom."""
    scale_x = thing.radius * min(1.0, 1.0 / aspect)
    scale_y = thing.radius * min(1.0, aspect)
    corners = outline_of(thing)
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    x, y = thing.center
    return (
        x + min(xs) * scale_x,
        y + min(ys) * scale_y,
        x + max(xs) * scale_x,
        y + max(ys) * scale_y,
    )


@lru_cache(maxsize=1024)
def font_of(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font by file name; Pillow's own for the empty name."""
    if name == BUILT_IN_FONT:
        return ImageFont.load_default(size)
    return ImageFont.truetype(name, size)


@lru_cache(maxsize=1)
def fonts() -> tuple[str, ...]:
    """The fonts this machine has, Pillow's own always among them."""
    found = [BUILT_IN_FONT]
    for name in FONT_NAMES:
        try:
            font_of(name, 20)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


def label_geometry(label: Label, aspect: float) -> tuple[Box, list[float]]:
    """The box of printed text and the edges between its characters, as fractions of the canvas.

    Returns:
        The tight box, and one more horizontal edge than there are characters.
    """
    reference = 100
    font = font_of(label.font, reference)
    left, top, right, bottom = font.getbbox(label.text)
    unit_x = label.size / reference * min(1.0, 1.0 / aspect)
    unit_y = label.size / reference * min(1.0, aspect)
    x, y = label.left_top
    lengths = [font.getlength(label.text[:i]) for i in range(len(label.text) + 1)]
    edges = [x + (length - left) * unit_x for length in lengths]
    return (x, y, x + (right - left) * unit_x, y + (bottom - top) * unit_y), edges


def render(scene: Scene, width: int, height: int, finish: Finish) -> Pixels:
    """The scene as RGB pixels, uint8 of shape (height, width, 3)."""
    image = Image.fromarray(paint_background(scene.background, width, height))
    for thing in scene.things:
        paint_thing(image, thing, finish.supersampling)
    if scene.label is not None:
        paint_label(image, scene.label)
    return finish_pixels(image, finish)


def paint_background(background: Background, width: int, height: int) -> Pixels:
    """A plain or textured background, uint8 of shape (height, width, 3)."""
    pattern = texture(background, width, height)
    if pattern is None:
        return np.full((height, width, 3), background.rgb, np.uint8)
    shades = np.asarray(background.rgb, np.float32) + pattern * background.strength
    return np.clip(shades, 0, 255).astype(np.uint8)


def texture(background: Background, width: int, height: int) -> NDArray[np.float32] | None:
    """Values around zero, shape (height, width, 1 or 3), or nothing for a plain one."""
    rng = np.random.default_rng(background.seed)
    if background.texture == "plain":
        return None
    if background.texture == "grain":
        return np.asarray(rng.standard_normal((height, width, 1), np.float32) * 0.5, np.float32)
    if background.texture == "clouds":
        cells = rng.integers(2, 9)
        coarse = rng.integers(0, 256, (cells, cells), np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray((np.asarray(smooth, np.float32)[..., None] - 128) / 128, np.float32)
    angle = rng.uniform(0, math.pi)
    along_x = math.cos(angle) * np.arange(width, dtype=np.float32)[None, :]
    along_y = math.sin(angle) * np.arange(height, dtype=np.float32)[:, None]
    if background.texture == "gradient":
        ramp = (along_x + along_y) / max(width, height)
        return np.asarray((ramp - ramp.mean())[..., None] * 1.5, np.float32)
    period = rng.uniform(0.05, 0.3) * min(width, height)
    if background.texture == "stripes":
        waves = np.sin((along_x + along_y) * (2 * math.pi / period))
        return np.asarray(np.sign(waves)[..., None] * 0.6, np.float32)
    waves = np.sin(along_x * (2 * math.pi / period)) * np.sin(along_y * (2 * math.pi / period))
    return np.asarray(waves[..., None], np.float32)


def paint_thing(image: Image.Image, thing: Thing, supersampling: int) -> None:
    """Draws one shape onto the image."""
    short = min(image.size)
    radius = thing.radius * short
    center_x, center_y = thing.center[0] * image.width, thing.center[1] * image.height
    left, top = math.floor(center_x - radius) - 2, math.floor(center_y - radius) - 2
    side = math.ceil(2 * radius) + 5
    corners = outline_of(thing)

    def mask(scale: float) -> Image.Image:
        canvas = Image.new("L", (side * supersampling, side * supersampling))
        points = [
            (
                (center_x - left + x * radius * scale) * supersampling,
                (center_y - top + y * radius * scale) * supersampling,
            )
            for x, y in corners
        ]
        draw = ImageDraw.Draw(canvas)
        if thing.outline is None or scale < 1:
            draw.polygon(points, fill=255)
        else:
            width = max(round(2 * supersampling), round(thing.outline * radius * supersampling))
            draw.line([*points, *points[:2]], fill=255, width=width, joint="curve")
        if supersampling == 1:
            return canvas
        return canvas.resize((side, side), Image.Resampling.BOX)

    if thing.edge is not None and thing.outline is None:
        image.paste(thing.edge, (left, top), mask(1.0))
        image.paste(thing.rgb, (left, top), mask(min(0.92, 1 - 1.5 / radius)))
    else:
        image.paste(thing.rgb, (left, top), mask(1.0))


def paint_label(image: Image.Image, label: Label) -> None:
    """Prints text onto the image."""
    size = max(6, round(label.size * min(image.size)))
    font = font_of(label.font, size)
    left, top, right, bottom = font.getbbox(label.text)
    x, y = label.left_top[0] * image.width, label.left_top[1] * image.height
    draw = ImageDraw.Draw(image)
    if label.plate is not None:
        pad = size * 0.2
        plate = (x - pad, y - pad, x + right - left + pad, y + bottom - top + pad)
        draw.rectangle(plate, fill=label.plate)
    draw.text((x - left, y - top), label.text, fill=label.rgb, font=font)


def finish_pixels(image: Image.Image, finish: Finish) -> Pixels:
    """Adds sensor noise and JPEG artefacts, as the finish says."""
    if finish.noise:
        rng = np.random.default_rng(finish.seed)
        grain = rng.standard_normal((image.height, image.width, 3), np.float32) * finish.noise
        noisy = np.clip(np.asarray(image, np.float32) + grain, 0, 255).astype(np.uint8)
        image = Image.fromarray(noisy)
    if finish.jpeg_quality is not None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=finish.jpeg_quality)
        image = Image.open(buffer)
    return np.asarray(image)
