"""How fast images were encoded lately, so that hopeless ones are refused before they are begun."""

import time
from collections import deque

_REMEMBERED = 16
_FORGOTTEN_AFTER_S = 300.0


class EncodePace:
    """Patches per second of the last encodings, by the vision tier's own clock.

    It promises the best of them: a batch shared with others or a busy moment looks slow, and an
    image that might be answered is not to be refused. What is older than five minutes is
    forgotten, so that a tier that was slow once is tried again.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)

    def note(self, patches: int, encode_ms: float) -> None:
        """Remembers one encoding; `encode_ms` is the tower's time, milliseconds."""
        if encode_ms > 0:
            self._seen.append((time.monotonic(), patches * 1e3 / encode_ms))

    def patches_per_s(self) -> float | None:
        """The best recent pace; None when nothing was encoded lately."""
        since_s = time.monotonic() - _FORGOTTEN_AFTER_S
        return max((pace for at_s, pace in self._seen if at_s >= since_s), default=None)
