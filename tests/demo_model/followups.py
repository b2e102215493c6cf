"""Second turns that only make sense after the first."""

import random

from tests.demo_model import phrasings
from tests.demo_model.drawing import Scene
from tests.demo_model.questions import (
    Turn,
    Turns,
    article,
    ask_color,
    ask_count,
    ask_existence,
    ask_place,
    group_for,
    matching,
    plural,
    random_group,
    references,
    shape_references,
    yes_no,
)


def second(question: str, answer: str) -> Turn:
    """A turn of the follow-up skill."""
    return Turn("follow_up", question, answer)


def ask_follow_up(rng: random.Random, scene: Scene) -> Turns | None:
    """Two turns: any question, then one that leans on it."""
    kinds = (other_color, other_color, other_count, other_existence, its_color)
    return rng.choice(kinds)(rng, scene)


def other_color(rng: random.Random, scene: Scene) -> Turns | None:
    """`What color is the circle?` - `And the square?`"""
    known = shape_references(scene)
    first = ask_color(rng, scene)
    if len(known) < 2 or first is None:
        return None
    thing, name = rng.choice([(t, n) for t, n in known if f" {n}" not in first[0].question])
    return (*first, second(rng.choice(phrasings.AND_COLOR).format(thing=name), thing.color))


def other_count(rng: random.Random, scene: Scene) -> Turns | None:
    """`How many squares are there?` - `And circles?`"""
    first = ask_count(rng, scene)
    group = random_group(rng, scene)
    question = rng.choice(phrasings.AND_COUNT).format(things=plural(group))
    return None if first is None else (*first, second(question, str(matching(scene, group))))


def other_existence(rng: random.Random, scene: Scene) -> Turns | None:
    """`Is there a green star?` - `And a red one?`"""
    truth = rng.random() < 0.5
    first = ask_existence(rng, scene, rng.random() < 0.5)
    group = group_for(rng, scene, truth)
    if first is None or group is None:
        return None
    question = rng.choice(phrasings.AND_EXISTS).format(a_thing=article(group))
    return (*first, second(question, yes_no(truth)))


def its_color(rng: random.Random, scene: Scene) -> Turns | None:
    """`Where is the triangle?` - `What color is it?`"""
    first = ask_place(rng, scene)
    if first is None:
        return None
    for thing in scene.things:
        label = f'"label": "{thing.shape}"'
        if label in first[0].answer and references(scene, thing)[:1] == [thing.shape]:
            return (*first, second(rng.choice(phrasings.IT_COLOR), thing.color))
    return None
