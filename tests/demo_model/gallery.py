"""Two or three pictures at once: are they the same, which one shows it."""

import random
from dataclasses import dataclass, replace

import torch

from tests.demo_model import phrasings
from tests.demo_model.drawing import COLORS, SHAPES, Finish, Pixels, Scene, Thing, render
from tests.demo_model.labels import Labels, dense_labels
from tests.demo_model.pictures import Grid, random_grid, resize
from tests.demo_model.questions import (
    Turn,
    Turns,
    article,
    matching,
    plural,
    random_group,
    shape_references,
    yes_no,
)
from tests.demo_model.scenes import Frame, compose, contrasting, random_names

ORDINALS = ("first", "second", "third")
MOST_THINGS = 2  # in each picture


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures shown together: their scenes, sizes and finishes; drawn when looked at."""

    scenes: tuple[Scene, ...]
    frames: tuple[Frame, ...]
    finishes: tuple[Finish, ...]

    @property
    def pictures(self) -> tuple[Pixels, ...]:
        """The pictures as drawn."""
        return tuple(
            render(scene, frame.width, frame.height, finish)
            for scene, frame, finish in zip(self.scenes, self.frames, self.finishes, strict=True)
        )

    def seen(self) -> list[torch.Tensor]:
        """The pictures as the model sees them, uint8 [H, W, 3]."""
        return [
            resize(picture, frame.seen_height, frame.seen_width)
            for picture, frame in zip(self.pictures, self.frames, strict=True)
        ]

    def labels(self) -> list[Labels]:
        """Dense labels of the pictures."""
        return [
            dense_labels(scene, frame.seen_width, frame.seen_height)
            for scene, frame in zip(self.scenes, self.frames, strict=True)
        ]


def random_scene(rng: random.Random, frame: Frame, most: int) -> Scene:
    """A scene of a few things without text."""
    while True:
        scene = compose(rng, frame, random_names(rng, rng.choice((1, 1, most))))
        if scene.things:
            return scene


def random_pair(rng: random.Random, frame: Frame, other_frame: Frame | None = None) -> Gallery:
    """Two pictures: the same, nearly the same, or unrelated (always so if frames differ)."""
    scene = random_scene(rng, frame, MOST_THINGS)
    roll = rng.random()
    if other_frame is not None or roll > 0.8:
        other_frame = other_frame or frame
        other = random_scene(rng, other_frame, MOST_THINGS)
    else:
        other_frame = frame
        other = scene if roll < 0.45 else changed(rng, scene)
    finish = Finish.random(rng)
    other_finish = Finish.random(rng) if rng.random() < 0.5 else finish
    return Gallery((scene, other), (frame, other_frame), (finish, other_finish))


def changed(rng: random.Random, scene: Scene) -> Scene:
    """The scene with one thing recoloured, reshaped or taken away."""
    things = list(scene.things)
    index = rng.randrange(len(things))
    thing = things[index]
    if len(things) > 1 and rng.random() < 0.3:
        del things[index]
        return scene.with_things(things)
    things[index] = recolored(rng, scene, thing) or reshaped(rng, thing)
    return scene.with_things(things)


def recolored(rng: random.Random, scene: Scene, thing: Thing) -> Thing | None:
    """The thing in another colour, half of the time and if one stands out."""
    color = rng.choice([c for c in COLORS if c != thing.color])
    rgb = contrasting(rng, scene.background.rgb, color)
    if rgb is None or rng.random() < 0.5:
        return None
    return replace(thing, color=color, rgb=rgb)


def reshaped(rng: random.Random, thing: Thing) -> Thing:
    """The thing in another shape."""
    shape = rng.choice([s for s in SHAPES if s != thing.shape])
    outline = None if shape == "cross" else thing.outline
    return replace(thing, shape=shape, rotation=0.0, fullness=0.42, outline=outline)


def random_triple(rng: random.Random, frames: tuple[Frame, Frame, Frame]) -> Gallery:
    """Three unrelated pictures."""
    scenes = tuple(random_scene(rng, frame, MOST_THINGS) for frame in frames)
    return Gallery(scenes, frames, tuple(Finish.random(rng) for _ in frames))


def pair_grids(rng: random.Random) -> tuple[Grid, Grid]:
    """Grids of two pictures, usually the same."""
    first = random_grid(rng)
    return first, first if rng.random() < 0.75 else random_grid(rng)


def ask_same(rng: random.Random, gallery: Gallery) -> Turns:
    """`Are the two pictures the same?`"""
    same = gallery.scenes[0].things == gallery.scenes[1].things
    return (Turn("compare", rng.choice(phrasings.SAME), yes_no(same)),)


def ask_more(rng: random.Random, gallery: Gallery) -> Turns | None:
    """`Which picture has more circles?`"""
    for _ in range(8):
        group = random_group(rng, rng.choice(gallery.scenes))
        first, second = (matching(scene, group) for scene in gallery.scenes[:2])
        if first != second:
            question = rng.choice(phrasings.MORE).format(things=plural(group))
            return (Turn("compare", question, f"Picture {1 if first > second else 2}"),)
    return None


def ask_color_in(rng: random.Random, gallery: Gallery) -> Turns | None:
    """`What color is the star in the second picture?`"""
    number = rng.randrange(len(gallery.scenes))
    known = shape_references(gallery.scenes[number])
    if not known:
        return None
    thing, name = rng.choice(known)
    question = rng.choice(phrasings.COLOR_IN)
    question = question.format(thing=name, nth=ORDINALS[number], number=number + 1)
    return (Turn("compare", question, thing.color),)


def ask_contents(rng: random.Random, gallery: Gallery) -> Turns | None:
    """`What is in each picture?` An exercise: here a thing follows its picture at once."""
    if any(len(scene.things) != 1 for scene in gallery.scenes):
        return None
    parts = [f"{i} {scene.things[0].name}" for i, scene in enumerate(gallery.scenes, start=1)]
    return (Turn("contents", rng.choice(phrasings.CONTENTS), f"Picture {', '.join(parts)}"),)


def ask_which(rng: random.Random, gallery: Gallery) -> Turns | None:
    """`Which picture shows a cross?`"""
    for _ in range(10):
        group = random_group(rng, rng.choice(gallery.scenes))
        having = [i for i, scene in enumerate(gallery.scenes) if matching(scene, group)]
        if len(having) == 1:
            name = article(group)
            question = rng.choice(phrasings.WHICH)
            question = question.format(a_thing=name, a_thing_capital=name.capitalize())
            return (Turn("which", question, f"Picture {having[0] + 1}"),)
    return None
