"""Composes scenes: which things, where, how big, on which background."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tests.demo_model.drawing import (
    COLORS,
    SHAPES,
    Background,
    Box,
    Label,
    Point,
    Rgb,
    Scene,
    Thing,
    box_of,
    color_of,
    contrast,
    fonts,
    hsv,
    label_geometry,
)

CELL = 32  # pixels of one merged visual token, after resizing
SMALLEST_RADIUS = 20.0  # pixels after resizing
LETTER_PITCH = 34.0  # least pixels after resizing from one character's middle to the next
BORDER = 0.05  # how near the border of its cell the middle of a thing may come, in cells
LEAST_CONTRAST = 105.0
TEXTURES = ("grain", "clouds", "gradient", "stripes", "waves")
WORDS = (
    "ACE ACT AND ANT ARC ART CAN CAP CAR CAT COD COLD CORN DEN DOC DOT EAR EAST END HAND HARP HAT "
    "HEN HERO HOLE HOP HOT LAND LANE LAP LAST LEAD LEND LOAD LOST NEAR NEST NET NOD NOSE NOTE OAR "
    "OLD ONE OPEN PAN PATH PEA PEAR PEN PET PLAN POND PORT POST POT RACE RAT READ RED REST ROAD "
    "ROD ROPE ROSE SAD SAND SEA SEAL SEAT SEND SHOP SHOE SOAP STAR STOP TAP TAR TEA TEN TENT TOE "
    "TON TOP TRAP OCEAN PLANT HORSE STONE STORE"
).split()


@dataclass(frozen=True, slots=True)
class Frame:
    """The size a picture is drawn at and the size it is resized to before it is seen."""

    width: int
    height: int
    seen_width: int
    seen_height: int
    border: float = BORDER  # 0: middles lie anywhere

    @property
    def scale(self) -> float:
        """Pixels seen for each pixel drawn."""
        return min(self.seen_width / self.width, self.seen_height / self.height)


def compose(
    rng: random.Random,
    frame: Frame,
    names: Sequence[tuple[str, str]],
    text: str | None = None,
) -> Scene:
    """A scene that shows things of the given (color, shape) names and perhaps a text.

    Things that find no room are left out, so read the names back from the scene.
    """
    background = random_background(rng, frame)
    aspect = frame.width / frame.height
    label = None if text is None else place_label(rng, frame, background, text)
    taken = [] if label is None else [label_geometry(label, aspect)[0]]
    things: list[Thing] = []
    for color, shape in names:
        thing = place_thing(rng, frame, background, (color, shape), taken, len(names))
        if thing is not None:
            things.append(thing)
            taken.append(box_of(thing, aspect))
    return Scene(aspect=aspect, background=background, things=tuple(things), label=label)


def random_background(rng: random.Random, frame: Frame) -> Background:
    """A background of any colour; about half of them are textured."""
    roll = rng.random()
    if roll < 0.3:
        rgb = hsv(0, 0, rng.uniform(0.85, 1))
    elif roll < 0.4:
        rgb = hsv(0, 0, rng.uniform(0, 0.25))
    else:
        rgb = hsv(rng.uniform(0, 360), rng.uniform(0, 1) ** 1.5, rng.uniform(0.15, 1))
    texture = "plain" if rng.random() < 0.5 else rng.choice(TEXTURES)
    strength = rng.uniform(4, 26)
    return Background(rgb=rgb, texture=texture, strength=strength, seed=rng.getrandbits(30))


def contrasting(rng: random.Random, background: Rgb, color: str) -> Rgb | None:
    """A shade of the colour that stands out from the background, if there is one."""
    for _ in range(6):
        rgb = color_of(rng, color)
        if contrast(rgb, background) >= LEAST_CONTRAST:
            return rgb
    return None


def place_thing(
    rng: random.Random,
    frame: Frame,
    background: Background,
    name: tuple[str, str],
    taken: Sequence[Box],
    crowd: int,
) -> Thing | None:
    """Puts one thing where it overlaps nothing; nothing if no place was found."""
    color, shape = name
    rgb = contrasting(rng, background.rgb, color)
    if rgb is None:
        return None
    short = min(frame.seen_width, frame.seen_height)
    area = frame.seen_width * frame.seen_height
    largest = min(0.42 * short, 0.45 * (area / max(1, crowd)) ** 0.5)
    for attempt in range(20):
        smallest = max(SMALLEST_RADIUS, 9 * frame.scale)
        radius = rng.uniform(smallest, max(smallest + 1, largest * (1 - attempt / 26))) / short
        thing = random_thing(rng, color, shape, rgb, radius, frame)
        box = box_of(thing, frame.width / frame.height)
        if fits(box, taken, frame):
            return thing
    return None


def random_thing(
    rng: random.Random, color: str, shape: str, rgb: Rgb, radius: float, frame: Frame
) -> Thing:
    """A thing of a given name and radius with everything else drawn by lot."""
    turn = {"square": 0.45, "triangle": 3.15, "star": 3.15, "cross": 0.8, "circle": 0.0}[shape]
    rotation = rng.uniform(-turn, turn) if rng.random() < 0.6 else 0.0
    fullness = rng.uniform(0.36, 0.52) if shape == "star" else rng.uniform(0.28, 0.7)
    style = rng.random()
    pixels = radius * min(frame.seen_width, frame.seen_height)
    outlined = style < 0.22 and pixels > (28 if shape == "star" else 20) and shape != "cross"
    thing = Thing(
        shape=shape,
        color=color,
        center=(0.0, 0.0),
        radius=radius,
        rotation=rotation,
        fullness=fullness,
        rgb=rgb,
        outline=rng.uniform(0.16, 0.4) if outlined else None,
        edge=rng.choice(((0, 0, 0), (255, 255, 255), (60, 60, 60))) if style > 0.85 else None,
    )
    return replace(thing, center=random_center(rng, thing, frame))


def random_center(rng: random.Random, thing: Thing, frame: Frame) -> Point:
    """Where the thing's centre goes so that the middle of its box is well inside a cell."""
    left, top, right, bottom = box_of(thing, frame.width / frame.height)
    x = random_middle(rng, (right - left) / 2, frame.seen_width // CELL, frame.border)
    y = random_middle(rng, (bottom - top) / 2, frame.seen_height // CELL, frame.border)
    return x - (left + right) / 2, y - (top + bottom) / 2


def random_middle(rng: random.Random, reach: float, cells: int, border: float) -> float:
    """A place on an axis of so many cells, away from its ends and from the cells' borders."""
    return inside_cell(rng.uniform(min(0.5, reach), max(0.5, 1 - reach)), cells, border)


def inside_cell(place: float, cells: int, border: float) -> float:
    """The place moved away from the borders of its cell."""
    cell = min(cells - 1, int(place * cells))
    return (cell + border + (1 - 2 * border) * (place * cells - cell)) / cells


def fits(box: Box, taken: Sequence[Box], frame: Frame) -> bool:
    """Whether a box lies on the canvas, apart from the others, its centre in a free cell."""
    gap_x, gap_y = 4 / frame.seen_width, 4 / frame.seen_height
    if min(box) < 0 or max(box) > 1:
        return False
    cell = cell_of(middle_of(box), frame)
    for other in taken:
        apart = (
            box[0] > other[2] + gap_x
            or other[0] > box[2] + gap_x
            or box[1] > other[3] + gap_y
            or other[1] > box[3] + gap_y
        )
        if not apart or cell_of(middle_of(other), frame) == cell:
            return False
    return True


def middle_of(box: Box) -> Point:
    """Centre of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def cell_of(point: Point, frame: Frame) -> tuple[int, int]:
    """Row and column of the merged visual token over a point."""
    column = int(point[0] * frame.seen_width / CELL)
    row = int(point[1] * frame.seen_height / CELL)
    return row, column


def place_label(
    rng: random.Random, frame: Frame, background: Background, text: str
) -> Label | None:
    """Prints a text somewhere on the canvas, as large as chance and room allow."""
    font = rng.choice(fonts())
    plate = None
    ground = background.rgb
    if rng.random() < 0.25:
        plate = ground = color_of(rng, rng.choice(COLORS))
    ink = readable_ink(rng, ground)
    draft = Label(text=text, left_top=(0, 0), size=1.0, font=font, rgb=ink, plate=plate)
    (_, _, width, height), edges = label_geometry(draft, frame.width / frame.height)
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    pitch = min(b - a for a, b in pairwise(middles)) * frame.seen_width
    smallest = LETTER_PITCH / pitch
    largest = min(0.94 / width, 0.7 / height, 1.6 * smallest)
    if largest < smallest:
        return None
    size = smallest + (largest - smallest) * rng.random() ** 1.3
    rows = frame.seen_height // CELL
    y = random_middle(rng, height * size / 2 + 0.02, rows, frame.border)
    left_top = (rng.uniform(0.02, 0.98 - width * size), y - height * size / 2)
    return replace(draft, size=size, left_top=left_top)


def readable_ink(rng: random.Random, ground: Rgb) -> Rgb:
    """An ink that can be read on the ground: often black or white."""
    for _ in range(8):
        if rng.random() < 0.5:
            ink: Rgb = rng.choice(((0, 0, 0), (255, 255, 255), (30, 30, 30)))
        else:
            ink = color_of(rng, rng.choice(COLORS))
        if contrast(ink, ground) >= 190:
            return ink
    return (0, 0, 0) if contrast((0, 0, 0), ground) > 220 else (255, 255, 255)


def random_names(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Colours and shapes for some things; repeats are common, so that counting is real."""
    shapes = rng.sample(SHAPES, rng.choice((1, 2, 2, 3, 5)))
    colors = rng.sample(COLORS, rng.choice((2, 3, 4, 9)))
    return [(rng.choice(colors), rng.choice(shapes)) for _ in range(count)]


def random_text(rng: random.Random) -> str:
    """A number of three to five digits or a word."""
    if rng.random() < 0.4:
        return rng.choice(WORDS)
    return "".join(rng.choice("0123456789") for _ in range(rng.choice((3, 3, 4, 4, 5))))
