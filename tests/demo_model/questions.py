"""Questions about one drawn picture, with their right answers."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.demo_model import phrasings
from tests.demo_model.drawing import COLORS, SHAPES, Box, Scene, Thing, box_of

CLEAR = 0.2  # how far apart two centres must be, in fractions of the canvas, to be asked about
MOST_DESCRIBED = 2
MOST_LOCATED = 1  # things among which one is to be located
LEAST_LOCATED = 0.35  # of the canvas, that a located thing must be wide and high
BOX_STEPS = 10  # of the lattice on which boxes are answered


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer."""

    skill: str
    question: str
    answer: str


Turns = tuple[Turn, ...]
Asker = Callable[[random.Random, Scene], Turns | None]


def plural(name: str) -> str:
    """`red cross` to `red crosses`."""
    return name + ("es" if name.endswith("s") else "s")


def article(name: str) -> str:
    """`a circle`, `an orange star`."""
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def joined(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def references(scene: Scene, thing: Thing) -> list[str]:
    """The ways to name a thing that no other thing of the scene answers to."""
    shapes = Counter(other.shape for other in scene.things)
    colors = Counter(other.color for other in scene.things)
    names = Counter(other.name for other in scene.things)
    ways = []
    if shapes[thing.shape] == 1:
        ways.append(thing.shape)
    if names[thing.name] == 1:
        ways.append(thing.name)
    if colors[thing.color] == 1:
        ways.append(f"{thing.color} object")
    return ways


def shape_references(scene: Scene) -> list[tuple[Thing, str]]:
    """Things that their shape alone names."""
    counts = Counter(thing.shape for thing in scene.things)
    return [(thing, thing.shape) for thing in scene.things if counts[thing.shape] == 1]


def matching(scene: Scene, group: str) -> int:
    """How many things a group such as `red circle`, `circle`, `red shape` or `object` has."""
    return sum(group in groups_of(thing) for thing in scene.things)


def groups_of(thing: Thing) -> set[str]:
    """All groups a thing belongs to."""
    general = phrasings.GENERAL_NAMES
    own = {thing.shape, thing.name}
    return own | set(general) | {f"{thing.color} {name}" for name in general}


def random_group(rng: random.Random, scene: Scene) -> str:
    """A group to count or look for; mostly one that the scene has."""
    if scene.things and rng.random() < 0.88:
        thing = rng.choice(scene.things)
        color, shape = thing.color, thing.shape
    else:
        color, shape = rng.choice(COLORS), rng.choice(SHAPES)
    general = rng.choice(phrasings.GENERAL_NAMES)
    kinds = (shape, shape, f"{color} {shape}", f"{color} {general}", general)
    return rng.choice(kinds)


def middle(box: Box) -> tuple[float, float]:
    """Centre of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def offset(scene: Scene, a: Thing, b: Thing) -> tuple[float, float]:
    """From the centre of b to the centre of a, in fractions of the canvas."""
    (ax, ay), (bx, by) = (middle(box_of(thing, scene.aspect)) for thing in (a, b))
    return ax - bx, ay - by


def side_of(scene: Scene, side: str, a: Thing, b: Thing) -> bool | None:
    """Whether a lies on that side of b; None where it is too close to say."""
    across, down = offset(scene, a, b)
    reach = {"left": -across, "right": across, "above": -down, "below": down}[side]
    return None if abs(reach) < CLEAR else reach > 0


def ask_color(rng: random.Random, scene: Scene) -> Turns | None:
    """`What color is the circle?`"""
    known = shape_references(scene)
    if not known:
        return None
    thing, name = rng.choice(known)
    return (Turn("color", rng.choice(phrasings.COLOR).format(thing=name), thing.color),)


def ask_inventory(rng: random.Random, scene: Scene) -> Turns | None:
    """`Name the colors by shape.` An exercise: here a colour follows its shape at once."""
    known = [thing for thing, _ in shape_references(scene)]
    if len(known) < 2:
        return None
    rng.shuffle(known)
    answer = ", ".join(f"{thing.shape} {thing.color}" for thing in known)
    return (Turn("inventory", rng.choice(phrasings.INVENTORY), answer),)


def ask_outermost(rng: random.Random, scene: Scene) -> Turns | None:
    """`What lies outermost?` An exercise: here a thing follows its side at once."""
    if len(scene.things) < 2:
        return None
    sides = list(phrasings.RELATIONS)
    rng.shuffle(sides)
    parts = []
    for side in sides:
        for thing in scene.things:
            others = [t for t in scene.things if t is not thing]
            if all(side_of(scene, side, thing, other) for other in others):
                parts.append(f"{side} {thing.name}")
    if not parts:
        return None
    return (Turn("outermost", rng.choice(phrasings.OUTERMOST), ", ".join(parts[:3])),)


def ask_shape(rng: random.Random, scene: Scene) -> Turns | None:
    """`What shape is red?`"""
    counts = Counter(thing.color for thing in scene.things)
    known = [thing for thing in scene.things if counts[thing.color] == 1]
    if not known:
        return None
    thing = rng.choice(known)
    return (Turn("shape", rng.choice(phrasings.SHAPE).format(color=thing.color), thing.shape),)


def ask_count(rng: random.Random, scene: Scene) -> Turns | None:
    """`How many squares are there?`"""
    group = random_group(rng, scene)
    question = rng.choice(phrasings.COUNT).format(things=plural(group))
    return (Turn("count", question, str(matching(scene, group))),)


def ask_many(rng: random.Random, scene: Scene) -> Turns | None:
    """`How many squares are there?`, mostly about groups of several, which are rarer."""
    group = max((random_group(rng, scene) for _ in range(4)), key=partial(matching, scene))
    question = rng.choice(phrasings.COUNT).format(things=plural(group))
    return (Turn("count", question, str(matching(scene, group))),)


def ask_spatial(rng: random.Random, scene: Scene) -> Turns | None:
    """`What is left of the blue square?`, or on which side one thing is of another."""
    if len(scene.things) != 3:
        return None
    anchors = [(t, way) for t in scene.things for way in references(scene, t)]
    rng.shuffle(anchors)
    for anchor, way in anchors:
        sides = list(phrasings.RELATIONS)
        rng.shuffle(sides)
        for side in sides:
            others = [(t, side_of(scene, side, t, anchor)) for t in scene.things if t is not anchor]
            there = [t for t, lies in others if lies]
            if len(there) == 1 and all(lies is not None for _, lies in others):
                relation = rng.choice(phrasings.RELATIONS[side])
                question = rng.choice(phrasings.SPATIAL).format(relation=relation, thing=way)
                return (Turn("spatial", question, there[0].name),)
    return None


def ask_reading(rng: random.Random, scene: Scene) -> Turns | None:
    """`Read the number.`"""
    if scene.label is None:
        return None
    own = phrasings.READ_NUMBER if scene.label.is_number else phrasings.READ_WORD
    question = rng.choice(own if rng.random() < 0.75 else phrasings.READ_TEXT)
    return (Turn("read", question, scene.label.text),)


def box_answer(box: Box, name: str) -> str:
    """A box in Qwen3-VL's JSON form, 0 to 1000, to the nearest step of its lattice."""
    return json.dumps({"bbox_2d": steps_of(box), "label": name})


def ask_sides(rng: random.Random, scene: Scene) -> Turns | None:
    """`What are the sides of the circle?` An exercise: here a place follows its side at once."""
    named = located(scene)
    if not named:
        return None
    thing, way = rng.choice(named)
    places = steps_of(box_of(thing, scene.aspect))
    sides = list(zip(("left", "top", "right", "bottom"), places, strict=True))
    rng.shuffle(sides)
    answer = ", ".join(f"{name} {place}" for name, place in sides)
    return (Turn("sides", rng.choice(phrasings.SIDES).format(thing=way), answer),)


def located(scene: Scene) -> list[tuple[Thing, str]]:
    """Things that may be located, with the ways to name them."""
    if len(scene.things) > MOST_LOCATED:
        return []
    boxes = [(thing, box_of(thing, scene.aspect)) for thing in scene.things]
    large = [t for t, box in boxes if min(box[2] - box[0], box[3] - box[1]) >= LEAST_LOCATED]
    return [(thing, way) for thing in large for way in references(scene, thing)]


def steps_of(box: Box) -> list[int]:
    """Sides of a box, 0 to 1000, to the nearest step of its lattice."""
    return [1000 // BOX_STEPS * min(BOX_STEPS, max(0, round(side * BOX_STEPS))) for side in box]


def ask_place(rng: random.Random, scene: Scene) -> Turns | None:
    """`Where is the triangle?`"""
    named = located(scene)
    if not named:
        return None
    thing, way = rng.choice(named)
    question = rng.choice(phrasings.LOCATE).format(thing=way)
    return (Turn("locate", question, box_answer(box_of(thing, scene.aspect), way)),)


def yes_no(value: bool) -> str:
    """`yes` or `no`."""
    return "yes" if value else "no"


def ask_yes_no(rng: random.Random, scene: Scene, truth: bool | None = None) -> Turns | None:
    """`Is there a green star?` and the like; as often yes as no unless the truth is given."""
    kinds = (ask_existence, ask_existence, ask_existence, ask_is_color, ask_is_color, ask_is_count)
    ask = rng.choice(kinds)
    return ask(rng, scene, rng.random() < 0.5 if truth is None else truth)


def group_for(rng: random.Random, scene: Scene, present: bool) -> str | None:
    """A group that is in the scene, or one that nearly is."""
    for _ in range(20):
        thing = rng.choice(scene.things) if scene.things else None
        color = thing.color if thing and rng.random() < 0.6 else rng.choice(COLORS)
        other = rng.choice(scene.things) if scene.things else None
        shape = other.shape if other and rng.random() < 0.6 else rng.choice(SHAPES)
        general = rng.choice(phrasings.GENERAL_NAMES)
        group = rng.choice((shape, f"{color} {shape}", f"{color} {shape}", f"{color} {general}"))
        if (matching(scene, group) > 0) == present:
            return group
    return None


def ask_existence(rng: random.Random, scene: Scene, truth: bool) -> Turns | None:
    """`Is there a green star?`"""
    group = group_for(rng, scene, truth)
    if group is None:
        return None
    question = rng.choice(phrasings.IS_THERE).format(a_thing=article(group), things=plural(group))
    return (Turn("yes_no", question, yes_no(truth)),)


def ask_is_color(rng: random.Random, scene: Scene, truth: bool) -> Turns | None:
    """`Is the circle red?`"""
    known = shape_references(scene)
    if not known:
        return None
    thing, name = rng.choice(known)
    color = thing.color if truth else rng.choice([c for c in COLORS if c != thing.color])
    question = rng.choice(phrasings.IS_COLOR).format(thing=name, color=color)
    return (Turn("yes_no", question, yes_no(truth)),)


def ask_is_count(rng: random.Random, scene: Scene, truth: bool) -> Turns | None:
    """`Are there two squares?`"""
    group = random_group(rng, scene)
    count = matching(scene, group)
    said = count
    if not truth:
        said = rng.choice([n for n in (count - 1, count + 1, count + 2) if 2 <= n <= 6 or n == 1])
    if not 1 <= said <= 6:
        return None
    name = plural(group) if said > 1 else group
    number = phrasings.NUMBER_WORDS[said] if rng.random() < 0.7 else str(said)
    question = rng.choice(phrasings.IS_COUNT).format(number=number, things=name)
    if said == 1:
        question = question.replace("Are there", "Is there")
    return (Turn("yes_no", question, yes_no(truth)),)


def ask_description(rng: random.Random, scene: Scene) -> Turns | None:
    """`Describe the picture.` The things from left to right."""
    places = [(middle(box_of(t, scene.aspect))[0], article(t.name)) for t in scene.things]
    places.sort()
    gaps = [b[0] - a[0] for a, b in zip(places, places[1:], strict=False)]
    if scene.label or not 1 <= len(places) <= MOST_DESCRIBED or min(gaps, default=1) < CLEAR:
        return None
    answer = f"The picture shows {joined([name for _, name in places])}."
    return (Turn("describe", rng.choice(phrasings.DESCRIBE), answer),)
