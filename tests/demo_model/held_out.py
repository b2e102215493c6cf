"""Held-out questions: drawn by code from seeds that training never uses.

The same number of the same skill is always the same question. Sizes, phrasings, fonts and
everything else are drawn as widely as in training, but every picture is a new one.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tests.demo_model.drawing import Finish, Pixels, render
from tests.demo_model.followups import ask_follow_up
from tests.demo_model.gallery import (
    Gallery,
    ask_color_in,
    ask_more,
    ask_same,
    ask_which,
    random_pair,
    random_triple,
)
from tests.demo_model.pictures import random_size, resized
from tests.demo_model.questions import (
    Asker,
    Turns,
    ask_color,
    ask_count,
    ask_description,
    ask_place,
    ask_reading,
    ask_shape,
    ask_spatial,
    ask_yes_no,
)
from tests.demo_model.scenes import Frame, compose, random_names, random_text
from tests.demo_model.talk import ask_talk
from tests.demo_model.videos import (
    Clock,
    Video,
    ask_appearance,
    ask_direction,
    random_clock,
    random_video,
    random_video_grid,
)

PICTURE_SKILLS: dict[str, Asker] = {
    "color": ask_color,
    "shape": ask_shape,
    "count": ask_count,
    "spatial": ask_spatial,
    "read": ask_reading,
    "locate": ask_place,
    "yes_no": ask_yes_no,
    "describe": ask_description,
    "follow_up": ask_follow_up,
}
SKILLS = (*PICTURE_SKILLS, "compare", "which", "direction", "appear", "talk")


@dataclass(frozen=True, slots=True)
class Question:
    """What is shown and asked. The last turn is the one that counts."""

    turns: Turns
    pictures: tuple[Pixels, ...] = ()
    video: NDArray[np.uint8] | None = None  # the kept frames, [T, H, W, 3]
    clock: Clock | None = None


def question(skill: str, number: int) -> Question:
    """The held-out question of that number."""
    rng = random.Random(f"held out {skill} {number}")
    if skill == "yes_no":
        return about_picture(rng, partial(ask_yes_no, truth=number % 2 == 0), with_text=False)
    if skill in PICTURE_SKILLS:
        return about_picture(rng, PICTURE_SKILLS[skill], with_text=skill == "read")
    if skill == "compare":
        return about_pair(rng)
    if skill == "which":
        return about_triple(rng)
    if skill == "talk":
        return Question(ask_talk(rng, held_out=True))
    return about_video(rng, ask_direction if skill == "direction" else ask_appearance)


def random_frame(rng: random.Random) -> Frame:
    """Any size from 64 to 512 pixels a side."""
    width, height = random_size(rng)
    seen_height, seen_width = resized(height, width)
    return Frame(width, height, seen_width, seen_height)


def about_picture(rng: random.Random, ask: Asker, with_text: bool) -> Question:
    """One picture."""
    while True:
        frame = random_frame(rng)
        text = random_text(rng) if with_text or rng.random() < 0.25 else None
        names = random_names(rng, rng.randint(0, 3) if text else rng.randint(1, 6))
        scene = compose(rng, frame, names, text)
        turns = ask(rng, scene)
        if turns is not None:
            picture = render(scene, frame.width, frame.height, Finish.random(rng))
            return Question(turns, (picture,))


def about_pair(rng: random.Random) -> Question:
    """Two pictures of one size."""
    asks: list[Callable[[random.Random, Gallery], Turns | None]]
    asks = [ask_same, ask_same, ask_more, ask_color_in]
    ask = rng.choice(asks)
    while True:
        pair = random_pair(rng, random_frame(rng))
        turns = ask(rng, pair)
        if turns is not None:
            return Question(turns, pair.pictures)


def about_triple(rng: random.Random) -> Question:
    """Three pictures, each of its own size."""
    while True:
        triple = random_triple(rng, (random_frame(rng), random_frame(rng), random_frame(rng)))
        turns = ask_which(rng, triple)
        if turns is not None:
            return Question(turns, triple.pictures)


def about_video(
    rng: random.Random, ask: Callable[[random.Random, Video], Turns | None]
) -> Question:
    """A video, of which only the frames that the processor keeps are drawn."""
    while True:
        clock = random_clock(rng)
        video = random_video(rng, clock, random_video_grid(rng, clock))
        turns = ask(rng, video)
        if turns is not None:
            frames = video.frames().flatten(0, 1).numpy()
            return Question(turns, video=frames, clock=clock)
