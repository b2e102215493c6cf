"""The order of images, the bound on waiting, and what may run beside what: with a clock of ours."""

from hypothesis import given
from hypothesis import strategies as st

from vision_service.replicas.passes import (
    BESIDE_FACTOR,
    Running,
    Waiting,
    is_worth_stopping,
    next_pass,
    pass_beside,
)

PACE = 100.0  # patches per second
BUDGET = 1000

patches = st.integers(4, 8000)
arrivals = st.lists(st.tuples(st.floats(0.0, 60.0), patches), min_size=1, max_size=15)


def waiting(patches: int, arrived_s: float = 0.0) -> Waiting:
    return Waiting(patches=patches, arrived_s=arrived_s)


def chosen(*images: Waiting) -> list[Waiting]:
    return next_pass(images, patches_per_s=PACE, max_patches=BUDGET)


def beside(now_s: float, running: Running, *images: Waiting) -> list[Waiting]:
    return pass_beside(images, running, now_s=now_s, patches_per_s=PACE, max_patches=BUDGET)


def running(patches: int) -> Running:
    return Running(patches=patches, began_s=0.0, estimate_s=patches / PACE)


def test_a_small_image_goes_before_a_huge_one_that_came_first() -> None:
    huge, small = waiting(8000), waiting(64, arrived_s=1.0)
    assert chosen(huge, small) == [small]


def test_a_huge_image_goes_before_small_ones_that_come_later_than_its_own_work() -> None:
    huge, small = waiting(8000), waiting(64, arrived_s=8000 / PACE)
    assert chosen(small, huge) == [huge]


def test_images_share_a_pass_as_they_fit() -> None:
    first, second, large, third = (waiting(n) for n in (400, 500, 900, 100))
    assert chosen(large, first, second, third) == [third, first, second]


@given(arrivals)
def test_passes_keep_their_budget_and_lose_nobody(images: list[tuple[float, int]]) -> None:
    left = [waiting(count, arrived) for arrived, count in images]
    while left:
        members = chosen(*left)
        assert members
        assert len(members) == 1 or sum(one.patches for one in members) <= BUDGET
        left = [one for one in left if one not in members]


@given(arrivals)
def test_nobody_is_overtaken_by_who_comes_later_than_their_own_work_takes(
    images: list[tuple[float, int]],
) -> None:
    """Every image as it comes, on a clock that each pass moves on by its work."""
    coming = sorted((waiting(count, arrived) for arrived, count in images), key=_arrival)
    now_s, there = 0.0, list[Waiting]()
    while coming or there:
        if not there:
            now_s = max(now_s, coming[0].arrived_s)
        while coming and coming[0].arrived_s <= now_s:
            there.append(coming.pop(0))
        members = chosen(*there)
        first = members[0]
        for other in there:
            if other not in members:
                assert first.arrived_s + first.patches / PACE <= (
                    other.arrived_s + other.patches / PACE
                )
        there = [one for one in there if one not in members]
        now_s += sum(one.patches for one in members) / PACE


def _arrival(image: Waiting) -> float:
    return image.arrived_s


def test_a_small_image_runs_beside_a_huge_one_that_runs() -> None:
    small, middle = waiting(64), waiting(3000)
    assert beside(1.0, running(8000), middle, small) == [small]


def test_nothing_runs_beside_a_pass_that_is_as_short_or_nearly_done() -> None:
    small = waiting(64)
    assert beside(0.0, running(128), small) == []
    nearly = 8000 / PACE - BESIDE_FACTOR * 64 / PACE
    assert beside(nearly - 0.1, running(8000), small) == [small]
    assert beside(nearly + 0.1, running(8000), small) == []


@given(arrivals, st.floats(0.0, 100.0), patches)
def test_what_runs_beside_is_a_small_part_of_what_is_left(
    images: list[tuple[float, int]], now_s: float, huge: int
) -> None:
    members = beside(now_s, running(huge), *(waiting(n, at) for at, n in images))
    work = sum(one.patches for one in members)
    assert work <= huge / BESIDE_FACTOR
    assert work / PACE <= running(huge).left_s(now_s) / BESIDE_FACTOR


def test_a_pass_is_begun_again_only_where_that_is_sooner_done() -> None:
    of_both = running(1000)  # 10 s
    assert is_worth_stopping(of_both, 0, now_s=9.9)
    assert is_worth_stopping(of_both, 100, now_s=8.9)
    assert not is_worth_stopping(of_both, 100, now_s=9.1)
    assert not is_worth_stopping(of_both, 900, now_s=1.1)
    assert not is_worth_stopping(of_both, 100, now_s=99.0)  # slower than thought: soon done
