"""Short videos: something moves, something appears."""

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from deploy.demo import phrasings
from deploy.demo.drawing import (
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
from deploy.demo.pictures import Grid, resize
from deploy.demo.questions import Turn, Turns
from deploy.demo.scenes import CELL, Frame, contrasting, random_background, random_thing

SAMPLED_PER_SECOND = 2
FEWEST_FRAMES, MOST_FRAMES = 4, 12  # that the processor keeps
VIDEO_SHORTEST_EDGE = 4 * 9 * CELL * CELL  # least pixels of all frames together
VIDEO_LONGEST_EDGE = 12 * 9 * CELL * CELL  # most pixels of all frames together
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
    """A video of two to six seconds."""
    rate = rng.choice((4, 8, 10, 12, 15, 24, 25, 30))
    return clock_of(rate, round(rng.uniform(2, 6) * rate))


def random_video_grid(rng: random.Random, clock: Clock) -> Grid:
    """Rows and columns of merged tokens of each frame."""
    while True:
        height, width = rng.randint(80, 360), rng.randint(80, 360)
        seen_height, seen_width = video_size(len(clock.indices), height, width)
        if min(seen_height, seen_width) >= 2 * CELL:
            return seen_height // CELL, seen_width // CELL


@dataclass(frozen=True, slots=True)
class Video:
    """A video as seen, and what happens in it."""

    frames: torch.Tensor  # uint8 [T, 2, H, W, 3]
    mover: Thing
    direction: str
    newcomer: Thing | None
    second: int | None  # at which the newcomer appears
    scenes: tuple[Scene, ...]  # what each pair of frames shows, T of them


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
    newcomer_place = None
    second = None
    if rng.random() < 0.75:
        newcomer_place = free_place(rng, newcomer, (mover, start, end), frame)
    moment = math.inf
    if newcomer_place is not None:
        newcomer = replace(newcomer, center=newcomer_place)
        moment, second = random_moment(rng, clock)
    finish = Finish.random(rng)
    base = Image.fromarray(paint_background(background, frame.width, frame.height))
    frames, scenes = [], []
    for time in clock.times:
        share = time / clock.times[-1]
        place = (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
        things = (replace(mover, center=place), *((newcomer,) if time >= moment else ()))
        image = base.copy()
        for thing in things:
            paint_thing(image, thing, finish.supersampling)
        frames.append(seen(finish_pixels(image, finish), frame))
        aspect = frame.width / frame.height
        scenes.append(Scene(aspect=aspect, background=background, things=things))
    stacked = torch.stack(frames).view(-1, 2, *frames[0].shape)
    shown = newcomer if newcomer_place is not None else None
    return Video(stacked, mover, direction, shown, second, tuple(scenes[1::2]))


def seen(pixels: Pixels, frame: Frame) -> torch.Tensor:
    """A frame at the size the model sees."""
    return resize(pixels, frame.seen_height, frame.seen_width)


def video_thing(
    rng: random.Random, shape: str, color: str, rgb: tuple[int, int, int], frame: Frame
) -> Thing:
    """A thing small enough to move about."""
    short = min(frame.seen_width, frame.seen_height)
    radius = rng.uniform(11, max(13, 0.24 * short)) / short
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
        length = rng.uniform(0.45, 1.0) * (high - low) if way else rng.uniform(0, 0.06)
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
        place = (rng.random(), rng.random())
        box = box_of(replace(thing, center=place), aspect)
        clear = box[0] > high_x or box[2] < low_x or box[1] > high_y or box[3] < low_y
        if clear and min(box) >= 0 and max(box) <= 1:
            return place
    return None


def random_moment(rng: random.Random, clock: Clock) -> tuple[float, int]:
    """When something appears, such that the first stamp that shows it names the second."""
    while True:
        moment = rng.uniform(0, clock.times[-1])
        pair = next(i for i, time in enumerate(clock.times) if time >= moment) // 2
        if int(moment) == int(clock.stamps[pair] + 0.05):
            return moment, int(moment)


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


def ask_video_color(rng: random.Random, video: Video) -> Turns:
    """`What color is the circle?`"""
    things = [video.mover] + ([video.newcomer] if video.newcomer else [])
    thing = rng.choice(things)
    return (Turn("color", rng.choice(phrasings.COLOR).format(thing=thing.shape), thing.color),)
