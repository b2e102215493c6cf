"""How fast images were encoded lately: who is hopeless, and which encoder has stopped."""

import time
from collections import deque
from typing import NamedTuple

_REMEMBERED = 16
_FORGOTTEN_AFTER_S = 300.0

_PATIENCE = 3.0  # times the predicted time: images differ, and other gateways' are not known
_LEAST_PATIENCE_S = 2.0


class _Call(NamedTuple):
    at_s: float
    ahead: int  # patches at work at its address when it was made, its own included
    took_s: float
    patches: int
    encode_s: float  # of the tower alone


class EncodePace:
    """Patches per second of the last encodings, by the vision tier's own clock.

    It promises the best of them: a batch shared with others or a busy moment looks slow, and an
    image that might be answered is not to be refused. What is older than five minutes is
    forgotten, so that a tier that was slow once is tried again.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._calls: deque[_Call] = deque(maxlen=_REMEMBERED)

    def note(self, patches: int, encode_ms: float) -> None:
        """Remembers one encoding; `encode_ms` is the tower's time, milliseconds."""
        if encode_ms > 0:
            self._seen.append((time.monotonic(), patches * 1e3 / encode_ms))

    def patches_per_s(self) -> float | None:
        """The best recent pace; None when nothing was encoded lately."""
        since_s = time.monotonic() - _FORGOTTEN_AFTER_S
        return max((pace for at_s, pace in self._seen if at_s >= since_s), default=None)

    def note_call(self, patches: int, *, ahead: int, took_s: float, encode_ms: float) -> None:
        """Remembers what a call took as this gateway saw it.

        Args:
            patches: Of its image.
            ahead: Patches this gateway had at work at its address, its own included.
            took_s: Until its first features.
            encode_ms: The tower's time.
        """
        encode_s = encode_ms / 1e3
        self._calls.append(_Call(time.monotonic(), ahead, took_s, patches, encode_s))

    def patience_s(self, ahead: int) -> float | None:
        """When a call is so late that its encoder has probably stopped; None: nothing is known.

        Three times what such calls take: their patches at the mean pace of the tower, and the
        largest of what recent calls took beyond that. So it grows with images, with what waits
        before them, and on a machine that is busy.

        Args:
            ahead: As `note_call`.
        """
        since_s = time.monotonic() - _FORGOTTEN_AFTER_S
        calls = [call for call in self._calls if call.at_s >= since_s]
        patches = sum(call.patches for call in calls)
        if not patches:
            return None
        s_per_patch = sum(call.encode_s for call in calls) / patches
        beyond_s = max(call.took_s - call.ahead * s_per_patch for call in calls)
        return _LEAST_PATIENCE_S + _PATIENCE * (ahead * s_per_patch + max(0.0, beyond_s))
