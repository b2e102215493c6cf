"""What a load is: where it goes, how fast, and what each request holds."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from deploy.terminal.screen import CommandError

LARGEST_SIDE = 16384  # pixels
TEXT_ONLY = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedSize:
    """Images of one size, pixels, and their share: `weight` against the sum of all weights."""

    width: int
    height: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A load.

    Attributes:
        url: The endpoint's base, such as `http://127.0.0.1:8000/v1`.
        model: None: the first of the endpoint's `/models`.
        rate: Requests a second, at random moments (Poisson); None: closed-loop.
        concurrency: Requests at once: of a closed loop always so many; of an open one at most,
            None without bound.
        requests: Measured requests.
        warm_ups: Requests before them, which count nowhere.
        sizes: What images are drawn from; none: text alone.
        images: Images in each request.
        video_frames: Frames of a video in each request; 0: no video.
        tokens: Longest answer, tokens.
        ignore_eos: Ask for exactly `tokens`, which not every server understands.
        ttft_ms, itl_ms: Targets a good answer meets; None: not asked for.
        timeout_s: Longest that one answer may take, from when it was sent.
        seed: Of moments, sizes and images.
    """

    url: str
    model: str | None = None
    rate: float | None = None
    concurrency: int | None = None
    requests: int = 32
    warm_ups: int = 1
    sizes: tuple[WeightedSize, ...] = (WeightedSize(width=1024, height=768),)
    images: int = 1
    video_frames: int = 0
    tokens: int = 64
    ignore_eos: bool = False
    ttft_ms: float | None = None
    itl_ms: float | None = None
    timeout_s: float = 600.0
    seed: int = 0

    def arrivals(self) -> tuple[float, ...] | None:
        """Seconds after the start at which each request is due; None: closed-loop."""
        if self.rate is None:
            return None
        draw = random.Random(self.seed)
        moments, now = [], 0.0
        for _ in range(self.requests):
            moments.append(now)
            now += draw.expovariate(self.rate)
        return tuple(moments)


def base_url(given: str) -> str:
    """The base of an endpoint's routes: `/v1` where the URL has no path, no route at its end.

    Raises:
        CommandError: it is no URL of HTTP.
    """
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CommandError(f"--url is {given!r}, expected http://HOST:PORT/v1", exit_code=2)
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def sizes_of(text: str) -> tuple[WeightedSize, ...]:
    """`1024x768:3,640x480` as sizes with their weights; `none`: no images.

    Raises:
        CommandError: another form, by what of it.
    """
    if text == TEXT_ONLY:
        return ()
    return tuple(_size_of(part.strip()) for part in text.split(","))


def _size_of(part: str) -> WeightedSize:
    size, colon, weight = part.partition(":")
    width, _, height = size.partition("x")
    try:
        found = WeightedSize(
            width=int(width), height=int(height), weight=float(weight) if colon else 1.0
        )
    except ValueError:
        found = WeightedSize(width=0, height=0)
    sides = (found.width, found.height)
    if not (all(1 <= side <= LARGEST_SIDE for side in sides) and 0 < found.weight < float("inf")):
        raise CommandError(
            f"--sizes takes WIDTHxHEIGHT[:WEIGHT],... or {TEXT_ONLY}, got {part!r}", exit_code=2
        )
    return found


def drawn_sizes(sizes: Sequence[WeightedSize], count: int, seed: int) -> list[WeightedSize]:
    """`count` sizes at random, by their weights."""
    weights = [size.weight for size in sizes]
    return random.Random(seed).choices(sizes, weights=weights, k=count)
