"""A little talk without pictures."""

import random

from tests.demo_model import phrasings
from tests.demo_model.questions import Turn, Turns

HELD_OUT_SHARE = 8  # one in so many ways to ask for a sum is never trained on
LARGEST_SUM = 9  # sums have one digit
_SMALL_TALK = (
    (phrasings.GREETINGS, phrasings.GREETING_ANSWER),
    (phrasings.WHO, phrasings.WHO_ANSWER),
    (phrasings.ABILITY, phrasings.ABILITY_ANSWER),
    (phrasings.THANKS, phrasings.THANKS_ANSWER),
)
_ABOUT_PICTURES = (
    phrasings.COLOR, phrasings.SHAPE, phrasings.COUNT, phrasings.READ_NUMBER,
    phrasings.DESCRIBE, phrasings.READ_WORD, phrasings.LOCATE, phrasings.IS_THERE,
)  # fmt: skip


def ask_talk(rng: random.Random, held_out: bool = False) -> Turns:
    """A greeting, a sum, or a question about a picture that is not there."""
    roll = rng.random()
    if roll < 0.6:
        return (ask_sum(rng, held_out),)
    if roll < 0.9:
        questions, answer = rng.choice(_SMALL_TALK)
        return (Turn("talk", rng.choice(questions), answer),)
    question = rng.choice(rng.choice(_ABOUT_PICTURES)).format(
        thing="circle", things="stars", color="red", a_thing="a blue square"
    )
    return (Turn("talk", question, phrasings.NO_PICTURE_ANSWER),)


def ask_sum(rng: random.Random, held_out: bool) -> Turn:
    """`What is 3 plus 4?`, in ways that are either all trained on or all held out."""
    while True:
        x, y, way = rng.randint(0, 9), rng.randint(0, 9), rng.randrange(len(phrasings.SUM))
        if x + y <= LARGEST_SUM and ((x * 7 + y * 13 + way * 5) % HELD_OUT_SHARE == 0) == held_out:
            return Turn("talk", phrasings.SUM[way].format(x=x, y=y), str(x + y))
