"""What clients see of a load, really or simulated, and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.simulation.run import Simulation
from tests.bench.plan.clients import Seen

FloatArray = npt.NDArray[np.float64]

FIGURES = {
    "ttft_p50_s": ("firsts", 0.5),
    "ttft_p99_s": ("firsts", 0.99),
    "itl_p50_s": ("gaps", 0.5),
    "itl_p99_s": ("gaps", 0.99),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What clients saw, or would have: seconds to first tokens, and between tokens.

    Attributes:
        firsts: float64 [requests].
        gaps: float64 [gaps].
        weights: float64 [gaps], of how many answers each was one.
    """

    firsts: FloatArray
    gaps: FloatArray
    weights: FloatArray

    @classmethod
    def seen(cls, answers: Sequence[Seen], seconds: float) -> "Sample":
        """Of real answers; gaps while requests came, as the simulator counts them."""
        gaps = np.array([gap for one in answers for gap in one.gaps_until(seconds)])
        return cls(np.array([one.first_s for one in answers]), gaps, np.ones_like(gaps))

    @classmethod
    def of(cls, run: Simulation) -> "Sample":
        """Of simulated ones."""
        return cls(np.array([one.ttft_s for one in run.answers]), *run.gaps.weighted())

    @classmethod
    def joined(cls, some: Sequence["Sample"]) -> "Sample":
        """All that several slices saw."""
        parts = ([getattr(one, name) for one in some] for name in cls.__slots__)
        return cls(*(np.concatenate(part) for part in parts))

    def figure(self, name: str) -> float:
        """One of `FIGURES`."""
        kind, share = FIGURES[name]
        if kind == "firsts":
            return _percentile(self.firsts, np.ones_like(self.firsts), share)
        return _percentile(self.gaps, self.weights, share)


def _percentile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """The smallest value that a share of all do not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(reached, share * reached[-1])]])
