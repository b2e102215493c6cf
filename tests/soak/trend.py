"""Whether what processes hold stays level: of the rests after a warm-up, the first beside the last.

At a rest nothing is asked and every connection of the client is closed. Descriptors, threads and
processes must not be more in the last quarter of the rests than in the first. Memory must not rise
by more than its bound: neither by the slope through all pairs of rests (Theil and Sen's: the
median, which outliers do not move) nor, beyond what comes and goes, by medians of the quarters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from tests.soak.census import OURS
from tests.soak.samples import Sample

MIB = 1 << 20
EQUAL = ("descriptors", "threads", "processes", "children")
MEMORY = ("anonymous", "shared")
# MiB an hour. A leak of one kilobyte a request would be ten.
BOUND = 6.0
# What comes and goes between two rests of one process, MiB: garbage that Python has not collected.
NOISE = 6.0
# Of a shorter run no slope can be told from that.
SHORT_H = 0.25

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """One quantity of one role; memory in MiB.

    Attributes:
        first: Median of the first quarter of the rests.
        last: Of the last.
        slope: Per hour.
        is_flat: The verdict; None where there is none, as on Ray's own processes.
    """

    role: str
    quantity: str
    first: float
    last: float
    slope: float
    is_flat: bool | None


def trends(samples: Sequence[Sample], *, warm_up: float) -> list[Trend]:
    """Every quantity of every role.

    Args:
        samples: Of at least four rests after the warm-up.
        warm_up: Share of the time that does not count.
    """
    begin_s = samples[-1].at_s * warm_up
    resting = [each for each in samples if each.rest is not None and each.at_s >= begin_s]
    roles = sorted({role for each in resting for role in each.held})
    return [_trend(resting, role, quantity) for role in roles for quantity in (*MEMORY, *EQUAL)]


def _trend(resting: Sequence[Sample], role: str, quantity: str) -> Trend:
    points = _levels(resting, role, quantity)
    quarter = max(1, len(points) // 4)
    first = median(value for _, value in points[:quarter])
    last = median(value for _, value in points[-quarter:])
    slope = theil_sen(points) * 3600
    is_flat: bool | None = None
    if role in OURS:
        if quantity in EQUAL:
            is_flat = last <= first
        else:
            hours = (points[-1][0] - points[0][0]) / 3600
            most = max(NOISE, BOUND * hours)
            is_flat = last - first <= most and (slope <= BOUND or hours < SHORT_H)
    return Trend(role=role, quantity=quantity, first=first, last=last, slope=slope, is_flat=is_flat)


def _levels(resting: Sequence[Sample], role: str, quantity: str) -> list[Point]:
    """When each rest was, seconds, and the median of its samples."""
    rests: dict[int | None, list[Point]] = {}
    scale = MIB if quantity in MEMORY else 1
    for each in resting:
        held = each.held.get(role)
        value = 0.0 if held is None else getattr(held, quantity) / scale
        rests.setdefault(each.rest, []).append((each.at_s, value))
    return [
        (median(at for at, _ in points), median(value for _, value in points))
        for points in rests.values()
    ]


def theil_sen(points: Sequence[Point]) -> float:
    """The median of the slopes through all pairs of points; 0 for fewer than two."""
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2]
    return median(slopes) if slopes else 0.0
