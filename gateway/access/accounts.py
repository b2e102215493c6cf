"""What a key may use, what it has used, and the refusals in between."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from gateway.access.rates import Bucket, Clock
from protos.wire.errors import RateLimited


class Rated(StrEnum):
    """What is limited by the minute, as refusals and headers name it."""

    REQUESTS = "requests"
    PROMPT_TOKENS = "tokens"
    IMAGE_TOKENS = "image-tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a key may use; None is no limit of its own.

    Attributes:
        max_in_flight: Requests at work.
        per_minute: Of each that is limited; a minute's worth is also the largest burst.
        priority: Of requests that name none, and the most urgent that others may name; lower is
            handled earlier. None: 0, and any.
    """

    max_in_flight: int | None = None
    per_minute: Mapping[Rated, int]
    priority: int | None = None


UNLIMITED = KeyLimits(per_minute={})


@dataclass(slots=True)
class Usage:
    """Counts since the process started, and requests at work now."""

    requests: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    image_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0


class Account:
    """One key's limits and usage. It outlives changes of the limits, and of the key itself.

    Args:
        name: For logs and metrics; empty for requests of a gateway that needs no key.
        limits: As they are now.
        clock: Seconds that only grow.
    """

    def __init__(
        self, name: str, limits: KeyLimits = UNLIMITED, *, clock: Clock = time.monotonic
    ) -> None:
        self.name = name
        self.limits = limits
        self.usage = Usage()
        self._clock = clock
        self.buckets: dict[Rated, Bucket] = {}
        self.limit(limits)

    def limit(self, limits: KeyLimits) -> None:
        """Sets other limits; what was used of the last minute's worth stays used."""
        self.limits = limits
        self.buckets = {
            rated: self.buckets[rated].resized(rate)
            if rated in self.buckets
            else Bucket(rate, clock=self._clock)
            for rated, rate in limits.per_minute.items()
        }

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request at work while the block runs.

        Raises:
            RateLimited: too many in the last minute.
        """
        self._take({Rated.REQUESTS: 1})
        self.usage.requests += 1
        self.usage.in_flight += 1
        try:
            yield
        finally:
            self.usage.in_flight -= 1

    def take_prompt(self, *, tokens: int, image_tokens: int) -> None:
        """Counts a prompt that is about to be answered.

        Args:
            tokens: All of it.
            image_tokens: Those of its images and videos.

        Raises:
            RateLimited: too many tokens in the last minute; nothing is counted.
        """
        self._take({Rated.PROMPT_TOKENS: tokens, Rated.IMAGE_TOKENS: image_tokens})
        self.usage.prompt_tokens += tokens
        self.usage.image_tokens += image_tokens

    def priority(self, asked: int | None) -> int:
        """The priority of a request that asks for one, or for none."""
        own = self.limits.priority
        if own is None:
            return asked or 0
        return own if asked is None else max(own, asked)

    def _take(self, costs: Mapping[Rated, int]) -> None:
        due = {rated: cost for rated, cost in costs.items() if cost and rated in self.buckets}
        waits = {rated: self.buckets[rated].wait_s(cost) for rated, cost in due.items()}
        longest = max(waits, key=waits.__getitem__, default=None)
        if longest is not None and waits[longest] > 0:
            self.usage.refused += 1
            raise self._refusal(longest, waits[longest])
        for rated, cost in due.items():
            self.buckets[rated].take(cost)

    def _refusal(self, rated: Rated, wait_s: float) -> RateLimited:
        # The next attempt needs its place among the requests as well.
        if Rated.REQUESTS in self.buckets:
            wait_s = max(wait_s, self.buckets[Rated.REQUESTS].wait_s(1))
        words = {Rated.PROMPT_TOKENS: "prompt tokens", Rated.IMAGE_TOKENS: "image tokens"}
        return RateLimited(
            f"the key {self.name} has used its {self.buckets[rated].per_minute}"
            f" {words.get(rated, rated)} a minute; try again in {wait_s:.1f} s",
            retry_after_s=wait_s,
        )
