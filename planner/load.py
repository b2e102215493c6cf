"""What is asked of the tiers, and how long it may take: read from flags or a file, checked."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from planner.fields import PlanError, count, kind_of, number

# Pixels of a side that become one token: Qwen3-VL's patches of 16, two by two.
TOKEN_SIDE = 32
PATCHES_PER_TOKEN = 4
_SIZE = re.compile(r"(\d+)x(\d+)(?::([\d.]+))?")
_FORM = "WIDTHxHEIGHT or WIDTHxHEIGHT:WEIGHT"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSize:
    """A size of images, and how often it comes beside the others."""

    width: int
    height: int
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, at least 1."""
        across, down = (max(1, round(side / TOKEN_SIDE)) for side in (self.width, self.height))
        return across * down

    @property
    def patches(self) -> int:
        """Patches of the tower."""
        return self.tokens * PATCHES_PER_TOKEN

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Reads 1024x768 or 1024x768:3.

        Raises:
            PlanError: it is written otherwise.
        """
        found = _SIZE.fullmatch(text.strip())
        if found is None:
            raise PlanError(f"{name} is {kind_of(text)}, expected {_FORM}")
        width, height = (count(name, int(found[part]), least=1, most=65_535) for part in (1, 2))
        return cls(width=width, height=height, weight=_weight(name, found[3]))


def _weight(name: str, text: str | None) -> float:
    try:
        return number(f"{name}'s weight", 1.0 if text is None else float(text), above=0)
    except ValueError as error:
        raise PlanError(f"{name}'s weight is {kind_of(text)}, expected a number") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load and its targets.

    Attributes:
        images: Requests with an image, per second.
        texts: Requests without one, per second.
        sizes: Of the images.
        tokens_in: Of text, on average.
        tokens_out: On average.
        tokens_cv: Deviation over mean of both: 0 says that all are alike.
        arrivals_cv: Of the time between two requests: 0 even, 1 at random (Poisson), more in
            bursts.
        repeat: Share of requests about the image (or the text) of an earlier one.
        ttft_s: Within which the first token comes, for 99 of 100 requests.
        itl_s: Within which the next token comes, for 99 of 100 tokens.
        seconds: For how long requests come.
        warm_up_s: Of them not counted, at the beginning.
        seed: Same seed, same requests.
    """

    images: float = 1.0
    texts: float = 0.0
    sizes: tuple[ImageSize, ...] = (ImageSize(width=1024, height=768),)
    tokens_in: float = 64.0
    tokens_out: float = 128.0
    tokens_cv: float = 0.5
    arrivals_cv: float = 1.0
    repeat: float = 0.0
    ttft_s: float = 5.0
    itl_s: float = 0.2
    seconds: float = 300.0
    warm_up_s: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        number("images", self.images)
        number("texts", self.texts)
        number("images and texts together", self.images + self.texts, above=0)
        number("tokens_in", self.tokens_in, least=1)
        number("tokens_out", self.tokens_out, least=1)
        number("tokens_cv", self.tokens_cv, most=10)
        number("arrivals_cv", self.arrivals_cv, most=100)
        number("repeat", self.repeat, most=1)
        number("ttft_s", self.ttft_s, above=0)
        number("itl_s", self.itl_s, above=0)
        number("seconds", self.seconds, above=0)
        number("warm_up_s", self.warm_up_s)
        count("seed", self.seed)
        if self.warm_up_s >= self.seconds:
            raise PlanError(
                f"warm_up_s is {self.warm_up_s:g}, expected less than seconds ({self.seconds:g})"
            )

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.images + self.texts

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """A load of a file's object or of flags; what is left out has its default.

        Raises:
            PlanError: a field is unknown, or not as it should be.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        for name in given:
            if name not in names:
                raise PlanError(f"{name} is unknown, expected one of {', '.join(sorted(names))}")
        values = {name: value for name, value in given.items() if name != "sizes"}
        if "sizes" in given:
            values["sizes"] = sizes_of(given["sizes"])
        return cls(**values)


def sizes_of(given: Any) -> tuple[ImageSize, ...]:
    """Sizes of a list of texts, or of one text with commas.

    Raises:
        PlanError: they are written otherwise.
    """
    texts: Sequence[Any] = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise PlanError(f"sizes is {kind_of(given)}, expected a list of {_FORM}")
    for text in texts:
        if not isinstance(text, str):
            raise PlanError(f"sizes has {kind_of(text)}, expected {_FORM}")
    return tuple(ImageSize.parse(text, "sizes") for text in texts)
