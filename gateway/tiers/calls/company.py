"""How long a token waits for company, so that a busy gateway sends fewer and larger pieces.

A piece costs a gateway several times what a token more in it costs. While it has time, every token
goes out at once. The more tokens come, the longer they wait for the next ones of their answer, so
that what would otherwise queue before the event loop goes out together. An answer's first token
never waits.
"""

import time
from collections.abc import Callable

# Tokens a second, of all answers: from the first on tokens wait, from the second on the longest.
SOME, MANY = 1500.0, 6000.0
LONGEST_S = 0.025
WINDOW_S = 0.25  # over which the rate is taken


class Company:
    """Knows the rate of one process's tokens.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._count = 0
        self._rate = 0.0

    def came(self, tokens: int) -> None:
        """So many tokens came, of any answer."""
        self._count += tokens
        elapsed_s = self._clock() - self._began_s
        if elapsed_s >= WINDOW_S:
            self._rate = self._count / elapsed_s
            self._began_s += elapsed_s
            self._count = 0

    def wait_s(self) -> float:
        """Seconds a token waits now; 0 below SOME tokens a second."""
        share = (self._rate - SOME) / (MANY - SOME)
        return LONGEST_S * min(1.0, max(0.0, share))
