"""Short videos: something moves, something appears."""

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from tests.demo_model import phrasings
from tests.demo_model.drawing import (
    COLORS,
    SHAPES,
    Finish,
    Pixels,
    Point,
    Scene,
    Thing,
    box_of,
    finish_pixels,
    paint_background,
    paint_thing,
)
from tests.demo_model.labels import dense_labels, stack
from tests.demo_model.pictures import Grid, resize
from tests.demo_model.questions import Turn, Turns
from tests.demo_model.scenes import (
    CELL,
    Frame,
    contrasting,
    random_background,
    random_center,
    random_thing,
)

SAMPLED_PER_SECOND = 2
FEWEST_FRAMES, MOST_FRAMES = 4, 8  # that the processor keeps
VIDEO_SHORTEST_EDGE = 112 * CELL * CELL  # least pixels of all frames together
VIDEO_LONGEST_EDGE = 144 * CELL * CELL  # most pixels of all frames together
DIRECTIONS: dict[str, Point] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True, slots=True)
class Clock:
    """Which moments of a video are seen: its rate, its length, the frames that are kept."""

    rate: int  # frames per second of the video itself
    indices: tuple[int, ...]  # frames kept, always an even number

    @property
    def times(self) -> list[float]:
        """Seconds of the kept frames."""
        return [index / self.rate for index in self.indices]

    @property
    def stamps(self) -> list[float]:
        """Mean time of each pair of kept frames, as the prompt says it."""
        times = self.times
        return [(a + b) / 2 for a, b in zip(times[::2], times[1::2], strict=True)]


def clock_of(rate: int, frames: int) -> Clock:
    """What the processor keeps of a video.

    Source: transformers `models/qwen3_vl/video_processing_qwen3_vl.py`.
    """
    kept = int(frames / rate * SAMPLED_PER_SECOND)
    kept = min(max(kept, FEWEST_FRAMES), MOST_FRAMES, frames)
    indices = [int(i) for i in np.linspace(0, frames - 1, kept).round()]
    return Clock(rate, tuple(indices + indices[-1:] * (kept % 2)))


def video_size(frames: int, height: int, width: int) -> tuple[int, int]:
    """Height and width that the processor gives each frame; see `clock_of`."""
    new_height, new_width = round(height / CELL) * CELL, round(width / CELL) * CELL
    total = round(frames / 2) * 2 * new_height * new_width
    if total > VIDEO_LONGEST_EDGE:
        beta = math.sqrt(frames * height * width / VIDEO_LONGEST_EDGE)
        new_height = max(CELL, math.floor(height / beta / CELL) * CELL)
        new_width = max(CELL, math.floor(width / beta / CELL) * CELL)
    elif total < VIDEO_SHORTEST_EDGE:
        beta = math.sqrt(VIDEO_SHORTEST_EDGE / (frames * height * width))
        new_height = math.ceil(height * beta / CELL) * CELL
        new_width = math.ceil(width * beta / CELL) * CELL
    return new_height, new_width


def random_clock(rng: random.Random) -> Clock:
    """A video of two to four seconds."""
    rate = rng.choice((4, 8, 10, 12, 15, 24, 25, 30))
    return clock_of(rate, round(rng.uniform(2, 4.4) * rate))


def random_video_grid(rng: random.Random, clock: Clock) -> Grid:
    """Rows and columns of merged tokens of each frame."""
    while True:
        height, width = rng.randint(110, 300), rng.randint(110, 300)
        seen_height, seen_width = video_size(len(clock.indices), height, width)
        if min(seen_height, seen_width) >= 3 * CELL:
            return seen_height // CELL, seen_width // CELL


@dataclass(frozen=True, slots=True)
class Video:
    """What happens in a video; its frames are drawn when looked at."""

    mover: Thing
    direction: str
    newcomer: Thing | None
    second: int | None  # at which the newcomer appears
    scenes: tuple[Scene, ...]  # what each kept frame shows
    frame: Frame
    finish: Finish

    def frames(self) -> torch.Tensor:
        """The kept frames as the model sees them, in pairs: uint8 [T, 2, H, W, 3]."""
        frame = self.frame
        base = paint_background(self.scenes[0].background, frame.width, frame.height)
        frames = []
        for scene in self.scenes:
            image = Image.fromarray(base)
            for thing in scene.things:
                paint_thing(image, thing, self.finish.supersampling)
            frames.append(seen(finish_pixels(image, self.finish), frame))
        return torch.stack(frames).view(-1, 2, *frames[0].shape)

    def labels(self) -> dict[str, torch.Tensor]:
        """Dense labels of what each pair's second frame shows, [T, ...] each."""
        width, height = self.frame.seen_width, self.frame.seen_height
        rows = []
        counts = [1, *(len(scene.things) for scene in self.scenes[1::2])]
        for before, scene in zip(counts, self.scenes[1::2], strict=False):
            newcomer = 1 if len(scene.things) > before else None
            rows.append(dense_labels(scene, width, height, (self.direction,), newcomer))
        return stack(rows)


def random_video(rng: random.Random, clock: Clock, grid: Grid) -> Video:
    """Draws a video in which one thing moves and perhaps another appears."""
    seen_height, seen_width = grid[0] * CELL, grid[1] * CELL
    scale = rng.uniform(0.8, 1.5)
    frame = Frame(round(seen_width * scale), round(seen_height * scale), seen_width, seen_height)
    background = random_background(rng, frame)
    shapes = rng.sample(SHAPES, 2)
    while True:
        rgbs = [(c, contrasting(rng, background.rgb, c)) for c in rng.sample(COLORS, 2)]
        if all(rgb is not None for _, rgb in rgbs):
            break
    mover, newcomer = (
        video_thing(rng, shape, color, rgb, frame)
        for shape, (color, rgb) in zip(shapes, rgbs, strict=True)
        if rgb is not None
    )
    direction, start, end = random_path(rng, mover, frame)
    moment, second = math.inf, None
    place = free_place(rng, newcomer, (mover, start, end), frame) if rng.random() < 0.8 else None
    if place is not None:
        newcomer = replace(newcomer, center=place)
        moment, second = random_moment(rng, clock)
    scenes = []
    for time in clock.times:
        share = time / clock.times[-1]
        at = (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
        things = (replace(mover, center=at), *((newcomer,) if time >= moment else ()))
        aspect = frame.width / frame.height
        scenes.append(Scene(aspect=aspect, background=background, things=things))
    return Video(
        mover=mover,
        direction=direction,
        newcomer=None if second is None else newcomer,
        second=second,
        scenes=tuple(scenes),
        frame=frame,
        finish=Finish.random(rng),
    )


def seen(pixels: Pixels, frame: Frame) -> torch.Tensor:
    """A frame at the size the model sees."""
    return resize(pixels, frame.seen_height, frame.seen_width)


def video_thing(
    rng: random.Random, shape: str, color: str, rgb: tuple[int, int, int], frame: Frame
) -> Thing:
    """A thing small enough to move about."""
    short = min(frame.seen_width, frame.seen_height)
    radius = rng.uniform(max(20, 0.17 * short), max(21, 0.25 * short)) / short
    return random_thing(rng, color, shape, rgb, radius, frame)


def random_path(rng: random.Random, thing: Thing, frame: Frame) -> tuple[str, Point, Point]:
    """A direction, and from where to where the thing moves."""
    aspect = frame.width / frame.height
    reach = (thing.radius * min(1.0, 1 / aspect), thing.radius * min(1.0, aspect))
    direction = rng.choice(list(DIRECTIONS))
    start, end = [0.0, 0.0], [0.0, 0.0]
    for axis in (0, 1):
        low, high = reach[axis], 1 - reach[axis]
        way = DIRECTIONS[direction][axis]
        length = rng.uniform(0.5, 0.8) * (high - low) if way else rng.uniform(0, 0.04)
        begin = rng.uniform(low, high - length)
        ends = (begin, begin + length)
        forward = way > 0 or (way == 0 and rng.random() < 0.5)
        start[axis], end[axis] = ends if forward else ends[::-1]
    return direction, (start[0], start[1]), (end[0], end[1])


def free_place(
    rng: random.Random, thing: Thing, moving: tuple[Thing, Point, Point], frame: Frame
) -> Point | None:
    """A centre for the thing, off the mover's way."""
    aspect = frame.width / frame.height
    mover, start, end = moving
    swept = [box_of(replace(mover, center=place), aspect) for place in (start, end)]
    low_x, low_y = (min(box[side] for box in swept) for side in (0, 1))
    high_x, high_y = (max(box[side] for box in swept) for side in (2, 3))
    for _ in range(30):
        place = random_center(rng, thing, frame)
        box = box_of(replace(thing, center=place), aspect)
        clear = box[0] > high_x or box[2] < low_x or box[1] > high_y or box[3] < low_y
        if clear and min(box) >= 0 and max(box) <= 1:
            return place
    return None


def random_moment(rng: random.Random, clock: Clock) -> tuple[float, int | None]:
    """When something appears: between two frames of a pair whose stamp names the second."""
    pairs = list(zip(clock.times[1::2], clock.stamps, strict=True))
    pairs = [pair for pair, first in zip(pairs, clock.times[::2], strict=True) if pair[0] > first]
    good = [time for time, stamp in pairs if int(time + 0.05) == int(stamp + 0.05)]
    if not good:
        return math.inf, None
    moment = rng.choice(good)
    return moment, int(moment + 0.05)


def ask_direction(rng: random.Random, video: Video) -> Turns:
    """`Which way does the circle move?`"""
    name = rng.choice((video.mover.shape, video.mover.name))
    return (Turn("direction", rng.choice(phrasings.DIRECTION).format(thing=name), video.direction),)


def ask_appearance(rng: random.Random, video: Video) -> Turns | None:
    """`When does the square appear?`"""
    if video.newcomer is None:
        return None
    name = rng.choice((video.newcomer.shape, video.newcomer.name))
    question = rng.choice(phrasings.APPEAR).format(thing=name)
    return (Turn("appear", question, f"at second {video.second}"),)
