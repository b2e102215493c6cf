"""Images whose encoding ended fronts of the vision tier: refused for a while, not tried on all.

That a process ends while it has an image proves nothing: machines die, and others' images were at
work there. So an image that was encoded once is innocent, one that was not is refused after two
such ends, for a time that doubles with each further one, and tried once when it is over. Images
that end replicas are their front's business, which knows which one ended.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass

REFUSED_AFTER = 2  # ends
FIRST_S = 10.0  # about what a new process takes to start
MOST_S = 600.0
_MOST_SUSPECTS = 1024
_MOST_INNOCENT = 4096


@dataclass(slots=True)
class _Suspect:
    ends: int = 0
    refused_until_s: float = 0.0


class Suspects:
    """What is known about images by their digests."""

    def __init__(self) -> None:
        self._suspects: OrderedDict[bytes, _Suspect] = OrderedDict()
        self._innocent: OrderedDict[bytes, None] = OrderedDict()

    def refused_for_s(self, digest: bytes) -> float | None:
        """Seconds this image is still refused; None where it may be encoded now.

        A suspect whose time is over is tried by one caller: the next is refused meanwhile.
        """
        suspect = self._suspects.get(digest)
        if suspect is None or suspect.ends < REFUSED_AFTER:
            return None
        now_s = time.monotonic()
        left_s = suspect.refused_until_s - now_s
        if left_s > 0:
            return left_s
        suspect.refused_until_s = now_s + FIRST_S
        return None

    def ended(self, digest: bytes) -> None:
        """A process ended while it had this image."""
        if digest in self._innocent:
            return
        suspect = self._suspects.setdefault(digest, _Suspect())
        self._suspects.move_to_end(digest)
        suspect.ends += 1
        over = suspect.ends - REFUSED_AFTER
        if over >= 0:
            refused_s = min(MOST_S, FIRST_S * 2**over)
            suspect.refused_until_s = time.monotonic() + refused_s
        while len(self._suspects) > _MOST_SUSPECTS:
            self._suspects.popitem(last=False)

    def is_suspect(self, digest: bytes) -> bool:
        """Whether a further end would be one too many, so that it is not to be tried twice."""
        suspect = self._suspects.get(digest)
        return suspect is not None and suspect.ends >= REFUSED_AFTER

    def encoded(self, digest: bytes) -> None:
        """This image was encoded: whatever ended meanwhile, it was not the cause."""
        self._suspects.pop(digest, None)
        self._innocent[digest] = None
        self._innocent.move_to_end(digest)
        while len(self._innocent) > _MOST_INNOCENT:
            self._innocent.popitem(last=False)
