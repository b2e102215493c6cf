"""How long the first message of a call may take that a tier answers at once."""

from collections import deque
from statistics import median

LEAST_S = 5.0
MOST_S = 30.0
_FACTOR = 10.0
_REMEMBERED = 64


class FirstWords:
    """A bound from what first messages took lately, those that did not come in time included.

    So a machine so busy that every answer is late gets more patience after a few calls, and one
    address that hangs among others that answer does not.
    """

    def __init__(self) -> None:
        self._seen_s: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """One call had its first message after so long, or had none until then."""
        self._seen_s.append(seconds)

    def within_s(self) -> float:
        """How long to wait for the next."""
        if _FACTOR * max(self._seen_s, default=0.0) <= LEAST_S:  # nor is the median above
            return LEAST_S
        usual_s = median(self._seen_s)
        return min(MOST_S, max(LEAST_S, _FACTOR * usual_s))
