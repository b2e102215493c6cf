"""How many calls may be made twice: a share of all, so that retries never become the load."""

import time

SHARE = 0.1
FLOOR_PER_S = 0.3  # so that a gateway with little to do can retry, too
MOST = 10.0


class RetryBudget:
    """A bucket that fills with calls and with time, and that every retry takes one from."""

    def __init__(self) -> None:
        self._left = MOST
        self._filled_s = time.monotonic()

    def called(self) -> None:
        """A call was made."""
        self._fill(SHARE)

    def take(self) -> bool:
        """Whether a call may be made again; if so, it is counted."""
        self._fill(0.0)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _fill(self, more: float) -> None:
        now_s = time.monotonic()
        more += (now_s - self._filled_s) * FLOOR_PER_S
        self._left, self._filled_s = min(MOST, self._left + more), now_s
