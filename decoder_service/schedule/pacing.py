"""How many prompt tokens a step may carry beside decoding sequences, from measured run times.

Running streams wait for the prompt tokens in their step. So a step may take at most
`STRETCH` times what it takes without them; the rest follows from how long steps have taken.
"""

# Running streams are promised twice, at the 99th percentile. Measured on the 2B shape beside
# eight streams: 1.85 gives 1.73, 2.1 gives 2.00 and 2.4 gives 2.10, while a prompt of 1024 tokens
# takes 2.8, 2.2 and 1.8 times its time alone.
STRETCH = 2.0
# Weight of the newest measurement: a handful of steps decide, one outlier does not. Prompt tokens
# that cost more than was thought make streams wait, so that is believed sooner.
_WEIGHT, _WEIGHT_OF_WORSE = 0.25, 0.5
# Few distinct chunk lengths, of which each is bound once.
_GRAIN = 4
# Before anything has been measured.
_FIRST = 32


class ChunkPacer:
    """Learns what a step costs and what a prompt token adds to it.

    Args:
        most_tokens: Never more prompt tokens than this beside decoding sequences.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._step_s: dict[int, float] = {}  # decoding sequences -> seconds of a step alone
        self._token_s: float | None = None  # what one prompt token has added
        self._last_tokens = 0  # of the latest mixed step

    def chunk_tokens(self, decode_count: int) -> int:
        """Most prompt tokens of the next step beside `decode_count` >= 1 sequences."""
        alone = self._alone_s(decode_count)
        if alone is None or self._token_s is None:
            return min(self._most_tokens, _FIRST)
        most = min(self._most_tokens, 2 * self._last_tokens)  # what was never tried comes slowly
        if self._token_s == 0:
            return most
        tokens = int((STRETCH - 1) * alone / self._token_s)
        return min(most, max(_GRAIN, tokens - tokens % _GRAIN))

    def observe(self, *, decode_count: int, chunk_tokens: int, seconds: float) -> None:
        """Takes note of one run."""
        if decode_count == 0:
            return
        if chunk_tokens == 0:
            old = self._step_s.get(decode_count, seconds)
            self._step_s[decode_count] = old + _WEIGHT * (min(seconds, 2 * old) - old)
            return
        self._last_tokens = max(_GRAIN, chunk_tokens)
        # Another batch's time would be charged to the chunk, or credited.
        alone = self._step_s.get(decode_count)
        if alone is None:
            return
        added = max(0.0, seconds - alone) / chunk_tokens
        old = added if self._token_s is None else self._token_s
        weight = _WEIGHT_OF_WORSE if added > old else _WEIGHT
        self._token_s = old + weight * (added - old)

    def _alone_s(self, decode_count: int) -> float | None:
        """Seconds of a step without prompt tokens, of the nearest batch that has been seen."""
        if not self._step_s or decode_count in self._step_s:
            return self._step_s.get(decode_count)
        nearest = min(self._step_s, key=lambda count: (abs(count - decode_count), count))
        return self._step_s[nearest]
