"""Composes scenes: which things, where, how big, on which background."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deploy.demo.drawing import (
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
SMALLEST_RADIUS = 13.0  # pixels after resizing
SMALLEST_FONT = 30.0  # pixels after resizing
SMALLEST_DRAWN_FONT = 12.0  # pixels before resizing
LEAST_CONTRAST = 105.0
TEXTURES = ("grain", "clouds", "gradient", "stripes", "waves")
WORDS = (
    "OPEN STOP EXIT TAXI CAFE BANK SHOP SALE FREE PUSH PULL DOOR ROOM FIRE STAR MOON SUN TREE "
    "BIRD FISH CAT DOG COW FOX LION BEAR WOLF DUCK FROG BOOK PAGE WORD READ NOTE MUSIC PIANO "
    "RIVER OCEAN BEACH HOUSE HOTEL MOTEL PARK ROAD LANE EAST WEST NORTH SOUTH LEFT RIGHT APPLE "
    "LEMON GRAPE PEACH BREAD WATER JUICE MILK TEA SALT SUGAR TABLE CHAIR LAMP CLOCK PHONE RADIO "
    "TRAIN PLANE BUS BIKE CAR SHIP BOAT TRUCK HELLO WORLD LOVE HOPE PEACE HAPPY SMILE DREAM "
    "GREEN BLUE RED BLACK WHITE PINK GOLD IRON WOOD STONE GLASS PAPER ZERO ONE TWO THREE FOUR "
    "FIVE SIX SEVEN EIGHT NINE TEN QUIZ JAZZ ZOO BOX KEY MAP NET PEN VAN WAX YES NOW NEW OLD"
).split()


@dataclass(frozen=True, slots=True)
class Frame:
    """The size a picture is drawn at and the size it is resized to before it is seen."""

    width: int
    height: int
    seen_width: int
    seen_height: int

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
    for attempt in range(14):
        smallest = max(SMALLEST_RADIUS, 5 * frame.scale)
        radius = rng.uniform(smallest, max(smallest + 1, largest * (1 - attempt / 20))) / short
        thing = random_thing(rng, color, shape, rgb, radius, frame)
        box = box_of(thing, frame.width / frame.height)
        if fits(box, thing.center, taken, frame):
            return thing
    return None


def random_thing(
    rng: random.Random, color: str, shape: str, rgb: Rgb, radius: float, frame: Frame
) -> Thing:
    """A thing of a given name and radius with everything else drawn by lot."""
    aspect = frame.width / frame.height
    reach_x, reach_y = radius * min(1.0, 1 / aspect), radius * min(1.0, aspect)
    center = (
        rng.uniform(min(0.5, reach_x), max(0.5, 1 - reach_x)),
        rng.uniform(min(0.5, reach_y), max(0.5, 1 - reach_y)),
    )
    turn = {"square": 0.45, "triangle": 3.15, "star": 3.15, "cross": 0.8, "circle": 0.0}[shape]
    rotation = rng.uniform(-turn, turn) if rng.random() < 0.6 else 0.0
    fullness = rng.uniform(0.36, 0.52) if shape == "star" else rng.uniform(0.28, 0.7)
    style = rng.random()
    pixels = radius * min(frame.seen_width, frame.seen_height)
    outlined = style < 0.22 and pixels > 15 and shape != "cross"
    return Thing(
        shape=shape,
        color=color,
        center=center,
        radius=radius,
        rotation=rotation,
        fullness=fullness,
        rgb=rgb,
        outline=rng.uniform(0.16, 0.4) if outlined else None,
        edge=rng.choice(((0, 0, 0), (255, 255, 255), (60, 60, 60))) if style > 0.85 else None,
    )


def fits(box: Box, center: Point, taken: Sequence[Box], frame: Frame) -> bool:
    """Whether a box lies on the canvas, apart from the others, its centre in a free cell."""
    gap_x, gap_y = 4 / frame.seen_width, 4 / frame.seen_height
    if min(box) < 0 or max(box) > 1:
        return False
    cell = cell_of(center, frame)
    for other in taken:
        apart = (
            box[0] > other[2] + gap_x
            or other[0] > box[2] + gap_x
            or box[1] > other[3] + gap_y
            or other[1] > box[3] + gap_y
        )
        middle = ((other[0] + other[2]) / 2, (other[1] + other[3]) / 2)
        if not apart or cell_of(middle, frame) == cell:
            return False
    return True


def cell_of(point: Point, frame: Frame) -> tuple[int, int]:
    """Row and column of the merged visual token over a point."""
    column = int(point[0] * frame.seen_width / CELL)
    row = int(point[1] * frame.seen_height / CELL)
    return row, column


def place_label(
    rng: random.Random, frame: Frame, background: Background, text: str
) -> Label | None:
    """Prints a text somewhere on the canvas, as large as chance and room allow."""
    short = min(frame.seen_width, frame.seen_height)
    font = rng.choice(fonts())
    plate = None
    ground = background.rgb
    if rng.random() < 0.25:
        plate = ground = color_of(rng, rng.choice(COLORS))
    ink = readable_ink(rng, ground)
    draft = Label(text=text, left_top=(0, 0), size=1.0, font=font, rgb=ink, plate=plate)
    (_, _, width, height), _ = label_geometry(draft, frame.width / frame.height)
    smallest = max(SMALLEST_FONT, SMALLEST_DRAWN_FONT * frame.scale) / short
    largest = min(0.92 / width, 0.8 / height, 72 / short)
    if largest < smallest:
        return None
    size = smallest + (largest - smallest) * rng.random() ** 1.3
    left_top = (
        rng.uniform(0.02, 0.98 - width * size),
        rng.uniform(0.03, 0.97 - height * size),
    )
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
    """A number of three to five digits, a word, or letters that are no word."""
    length = rng.choice((3, 4, 4, 5))
    roll = rng.random()
    if roll < 0.55:
        return "".join(rng.choice("0123456789") for _ in range(length))
    if roll < 0.8:
        return rng.choice(WORDS)
    return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(length))
