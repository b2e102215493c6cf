"""Deadlines: points in `time.monotonic()` time, passed on as the seconds that are left."""

import time
from dataclasses import dataclass

from protos.wire.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """When the first token and when the whole answer must be there."""

    first_token_by_s: float
    complete_by_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long requests and their parts may take, seconds."""

    request_s: float  # a whole answer; a stream's first token
    stream_s: float  # a whole stream
    stream_idle_s: float  # silence within a stream
    encode_s: float  # a request's images, beside the time for their patches
    encode_patches_per_s: float  # the slowest pace that is waited for

    def encode_within_s(self, patches: int) -> float:
        """How long encoding images of so many patches together may take."""
        return self.encode_s + patches / self.encode_patches_per_s

    def deadline(
        self, arrived_s: float, *, stream: bool, client_left_s: float | None = None
    ) -> Deadline:
        """The deadline of one request; a client's own may only shorten it."""
        limit_s = arrived_s + (self.stream_s if stream else self.request_s)
        if client_left_s is not None:
            limit_s = min(limit_s, time.monotonic() + client_left_s)
        return Deadline(
            first_token_by_s=min(limit_s, arrived_s + self.request_s), complete_by_s=limit_s
        )


def seconds_left(by_s: float) -> float:
    """Seconds until `by_s`.

    Raises:
        DeadlineExceeded: none are left.
    """
    left = by_s - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("the deadline passed before the answer was complete")
    return left


def milliseconds_since(start_s: float) -> float:
    """Milliseconds from a `time.monotonic()` moment until now."""
    return (time.monotonic() - start_s) * 1e3
