"""How the messages of a decoder come, and when its silence is suspicious."""

import time

# A decoder that is silent for so long, and for so many times its longest silence in the same
# answer, is asked whether it is there. One that only lets a sequence wait says so.
SUSPECT_AFTER_S = 2.0
SUSPECT_AFTER_GAPS = 4.0


class Pace:
    """How a decoder's messages come, `time.monotonic()` seconds.

    Attributes:
        last_s: When the last one came, or the call was made.
        first_s: How long the first decoder took for the first one.
        has_begun: Whether one has come in this call.
        suspect_s: When it has been silent for suspiciously long.
    """

    def __init__(self) -> None:
        self.first_s = 0.0
        self._longest_s = 0.0
        self.called()

    def called(self) -> None:
        """A call is made."""
        self.last_s = time.monotonic()
        self.has_begun = False
        self.asked()

    def heard(self) -> None:
        """A message came."""
        now_s = time.monotonic()
        if self.has_begun:
            self._longest_s = max(self._longest_s, now_s - self.last_s)
        elif not self.first_s:
            self.first_s = now_s - self.last_s
        self.last_s, self.has_begun = now_s, True
        self._trust(now_s)

    def asked(self) -> None:
        """The decoder is there just now: it is trusted for as long again."""
        self._trust(time.monotonic())

    def _trust(self, now_s: float) -> None:
        self.suspect_s = now_s + max(SUSPECT_AFTER_S, SUSPECT_AFTER_GAPS * self._longest_s)
