"""The requests of a load, drawn once: every plan of a comparison gets the same ones."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.load import PATCHES_PER_TOKEN, Load

FloatArray = npt.NDArray[np.float64]

# A repeated beginning is that of one of so many conversations before.
_REMEMBERED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request.

    Attributes:
        number: Its place among all.
        moment: When it comes, seconds.
        image_tokens: Of its image; 0 without one.
        text_tokens: Of the text behind the image, or of all of it.
        output_tokens: At least 1.
        conversation: Requests of the same one begin alike.
    """

    number: int
    moment: float
    image_tokens: int
    text_tokens: int
    output_tokens: int
    conversation: int

    @property
    def patches(self) -> int:
        """Of its image; 0 without one."""
        return self.image_tokens * PATCHES_PER_TOKEN


def arrivals(load: Load, *, max_context: int) -> list[Arrival]:
    """Every request of a load, in order.

    Args:
        load: The load.
        max_context: Prompts and answers are cut to fit.
    """
    draw = np.random.default_rng(load.seed)
    moments = _moments(load, draw)
    total = len(moments)
    with_image = draw.random(total) < load.images / load.rate
    weights = np.array([size.weight for size in load.sizes])
    sizes = draw.choice(len(load.sizes), total, p=weights / weights.sum())
    before = _spread(draw, load.tokens_in, load.tokens_cv, total)
    after = _spread(draw, load.tokens_out, load.tokens_cv, total)
    back = draw.integers(1, _REMEMBERED + 1, total) * (draw.random(total) < load.repeat)
    made = list[Arrival]()
    for number, moment in enumerate(moments):
        image_tokens = load.sizes[int(sizes[number])].tokens if with_image[number] else 0
        conversation = number
        if 0 < back[number] <= number:
            earlier = made[number - int(back[number])]
            image_tokens, conversation = earlier.image_tokens, earlier.conversation
        image_tokens = min(image_tokens, max_context - 2)
        text = min(max(1, round(before[number])), max_context - image_tokens - 1)
        output = min(max(1, round(after[number])), max_context - image_tokens - text)
        made.append(
            Arrival(
                number=number,
                moment=float(moment),
                image_tokens=image_tokens,
                text_tokens=text,
                output_tokens=output,
                conversation=conversation,
            )
        )
    return made


def _moments(load: Load, draw: np.random.Generator) -> FloatArray:
    """When requests come: gaps of a gamma distribution, which is Poisson's at a deviation of 1."""
    mean, cv = 1 / load.rate, load.arrivals_cv
    expected = load.seconds * load.rate
    most = int(expected + 8 * max(1.0, cv) * math.sqrt(expected)) + 50
    if cv == 0:
        gaps = np.full(most, mean)
    else:
        gaps = draw.gamma(1 / cv**2, mean * cv**2, most)
    moments = np.cumsum(gaps)
    return moments[moments < load.seconds]


def _spread(draw: np.random.Generator, mean: float, cv: float, total: int) -> FloatArray:
    """Numbers of a log-normal distribution."""
    sigma = math.sqrt(math.log1p(cv * cv))
    return draw.lognormal(math.log(mean) - sigma * sigma / 2, sigma, total)
