"""How often a tier that died is started again, and after what pause."""

import time
from collections import Counter

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class Restarts:
    """Counts the restarts of each tier of a stack.

    Args:
        most: Restarts of one tier before its end is the stack's; 0 is none at all.
        first_pause_s: Before a tier's first restart; doubled each time, up to a minute.
    """

    def __init__(self, most: int, *, first_pause_s: float = FIRST_PAUSE_S) -> None:
        self._most = most
        self._first_pause_s = first_pause_s
        self._done: Counter[str] = Counter()

    def next_pause_s(self, tier: str) -> float | None:
        """Counts one more restart: seconds to wait before it, or None when it is one too many."""
        if self._done[tier] >= self._most:
            return None
        pause = self._first_pause_s * 2.0 ** self._done[tier]
        self._done[tier] += 1
        return min(pause, LONGEST_PAUSE_S)


def passed(moments: dict[str, float]) -> list[str]:
    """Takes out the names whose moment has come."""
    names = [name for name, moment in moments.items() if moment <= time.monotonic()]
    for name in names:
        del moments[name]
    return names
