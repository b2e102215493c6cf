"""What is asked about a sight in training, and how often.

Some of it is never examined: exercises, in which what is asked for follows at once on what it is
to be found by.
"""

import random
from collections.abc import Callable, Mapping

from tests.demo_model.drawing import Scene
from tests.demo_model.followups import ask_follow_up
from tests.demo_model.gallery import (
    Gallery,
    ask_color_in,
    ask_contents,
    ask_more,
    ask_same,
    ask_which,
)
from tests.demo_model.questions import (
    Asker,
    Turns,
    ask_color,
    ask_count,
    ask_description,
    ask_inventory,
    ask_many,
    ask_outermost,
    ask_place,
    ask_reading,
    ask_shape,
    ask_sides,
    ask_spatial,
    ask_yes_no,
)
from tests.demo_model.videos import Video, ask_appearance, ask_direction

PICTURE_ASKERS: Mapping[Asker, float] = {
    ask_color: 1.0,
    ask_inventory: 0.4,
    ask_shape: 0.4,
    ask_count: 0.8,
    ask_many: 1.2,
    ask_spatial: 4.0,
    ask_outermost: 1.0,
    ask_reading: 2.0,
    ask_place: 1.0,
    ask_sides: 0.5,
    ask_yes_no: 1.0,
    ask_description: 3.0,
    ask_follow_up: 1.0,
}
Ask = Callable[[], Turns | None]


def picture_asker(rng: random.Random, scene: Scene) -> Ask:
    """Asks about a picture, each skill as often as its weight says."""
    askers, weights = list(PICTURE_ASKERS), list(PICTURE_ASKERS.values())

    def ask() -> Turns | None:
        return rng.choices(askers, weights)[0](rng, scene)

    return ask


def place_asker(rng: random.Random, scene: Scene) -> Ask:
    """Asks where a thing is."""

    def ask() -> Turns | None:
        return rng.choice((ask_place, ask_place, ask_sides))(rng, scene)

    return ask


def pair_asker(rng: random.Random, pair: Gallery, same_size: bool) -> Ask:
    """Asks about two pictures; whether they are the same only if their sizes do not tell."""
    askers: list[Callable[[random.Random, Gallery], Turns | None]]
    askers = [ask_more, ask_more, ask_color_in, ask_color_in, ask_which, ask_contents]
    if same_size:
        askers += [ask_same, ask_same, ask_same]

    def ask() -> Turns | None:
        return rng.choice(askers)(rng, pair)

    return ask


def triple_asker(rng: random.Random, triple: Gallery) -> Ask:
    """Asks which of three pictures fits."""

    def ask() -> Turns | None:
        return rng.choice((ask_which, ask_which, ask_which, ask_contents))(rng, triple)

    return ask


def video_asker(rng: random.Random, video: Video) -> Ask:
    """Asks what happens in a video."""
    askers: list[Callable[[random.Random, Video], Turns | None]]
    askers = [ask_direction, ask_direction, ask_appearance, ask_appearance, ask_appearance]

    def ask() -> Turns | None:
        return rng.choice(askers)(rng, video)

    return ask
