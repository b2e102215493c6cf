"""How far the seconds of steps lie from their median, drawn from measured shares."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_DRAWN = 65_536


class Spread:
    """Factors for the steps of many decoders, from one table that was drawn once.

    Args:
        shares: The factor at equal shares from 0 to 1.
        seed: Same seed, same factors.
    """

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        draw = np.random.default_rng(seed)
        places = np.linspace(0, 1, len(shares))
        self._factors = np.interp(draw.random(_DRAWN), places, shares)
        self._next = 0

    def take(self, count: int) -> FloatArray:
        """The next factors, float64 [count]; at most as many as the table has."""
        first = self._next if self._next + count <= _DRAWN else 0
        self._next = first + count
        return self._factors[first : self._next]
