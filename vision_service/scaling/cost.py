"""How long a tower takes over images: predicted from their grids, learned from passes.

Products grow with the patches, attention with the patches that attend to each other: all of one
image, or of one temporal patch of a video. Two figures say it for a tower on its processor, and
each replica learns its own from the passes that it runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from protos.media.images import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What images ask of a tower.

    Attributes:
        patches: P.
        pairs: Patches times the patches that each attends to: t * (h * w)² of a grid.
    """

    patches: int
    pairs: int

    @classmethod
    def of(cls, grid: Grid) -> Self:
        """The work of one image, or of temporal patches of a video."""
        return cls(patches=grid.patches, pairs=grid.patches * grid.h * grid.w)

    @classmethod
    def sum(cls, works: Iterable["Work"]) -> Self:
        """The work of a pass of several."""
        patches = pairs = 0
        for work in works:
            patches += work.patches
            pairs += work.pairs
        return cls(patches=patches, pairs=pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Seconds that a tower takes for one patch, and for one pair of patches; both at least 0."""

    patch_s: float
    pair_s: float

    def seconds(self, work: Work) -> float:
        """How long the tower takes over it, alone."""
        return self.patch_s * work.patches + self.pair_s * work.pairs


# An ordinary image: what "patches per second" means where only one figure is wanted.
USUAL = Work.of(Grid(1, 32, 32))

# Before the first pass. Attention's share is from the 2B and 4B towers: by multiplications a pair
# is 1/6144 of a patch, by the clock 1/2900 (tests/bench/results/towers.md).
START = Cost(patch_s=1 / 200, pair_s=1 / 200 / 4096)

_KEPT = 0.9  # what a pass still counts after the next one: about the last ten matter
_SHARE_WEIGHT = 0.1  # of START's share of attention, beside one pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A cost that passes are fitted to: least squares, the latest count most.

    Passes of one size cannot tell products from attention, so the two keep START's relation as far
    as passes do not say otherwise; their scale is that of the passes from the first one on. A pass
    counts by how it deviates from what START says of it, so that small and large ones weigh alike.

    Attributes:
        cost: What the passes so far say.
        sums: Decayed sums of x², x * y, y², x * z and y * z: x and y are the shares of products and
            attention in what START says of a pass, z is how many times that it took.
    """

    cost: Cost = START
    sums: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def after(self, work: Work, seconds: float) -> "Fit":
        """The fit with one more pass.

        Args:
            work: Of all its images; at least one patch.
            seconds: What it took.
        """
        guess_s = START.seconds(work)
        x, z = START.patch_s * work.patches / guess_s, seconds / guess_s
        y = 1.0 - x
        xx, xy, yy, xz, yz = (_KEPT * old for old in self.sums)
        sums = (xx + x * x, xy + x * y, yy + y * y, xz + x * z, yz + y * z)
        return Fit(cost=_solved(*sums), sums=sums)

    @property
    def patches_per_s(self) -> float:
        """Pace at a usual image."""
        return USUAL.patches / self.cost.seconds(USUAL)


def _solved(xx: float, xy: float, yy: float, xz: float, yz: float) -> Cost:
    """START's two figures times the factors of the least squares, neither below 0."""
    a, b, c = xx + _SHARE_WEIGHT, xy - _SHARE_WEIGHT, yy + _SHARE_WEIGHT
    determinant = a * c - b * b
    products = (c * xz - b * yz) / determinant
    attention = (a * yz - b * xz) / determinant
    if attention < 0:
        products, attention = xz / a, 0.0
    elif products < 0:
        products, attention = 0.0, yz / c
    return Cost(patch_s=START.patch_s * products, pair_s=START.pair_s * attention)
