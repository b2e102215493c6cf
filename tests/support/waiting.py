"""Waiting for a condition instead of sleeping."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], *, what: str, timeout_s: float = 30.0, interval_s: float = 0.02
) -> None:
    """Polls `condition` until it is true.

    Raises:
        TimeoutError: it was not, in time; the text says `what` was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(interval_s)
