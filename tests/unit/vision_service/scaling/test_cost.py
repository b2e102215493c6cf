"""Seconds predicted from grids, and learned from passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.media.images import Grid
from vision_service.scaling.cost import START, USUAL, Cost, Fit, Work

sides = st.integers(1, 64).map(lambda half: 2 * half)
grids = st.builds(Grid, st.integers(1, 8), sides, sides)
works = grids.map(Work.of)
costs = st.builds(
    lambda patch_s, share: Cost(patch_s=patch_s, pair_s=patch_s * share),
    st.floats(1e-6, 1.0),
    st.floats(0.0, 1 / 1500),
)

SMALL, LARGE = Work.of(Grid(1, 16, 16)), Work.of(Grid(1, 64, 64))


def test_attention_grows_with_the_square_of_an_image_and_not_of_a_videos_length() -> None:
    image, twice, frames = (Work.of(Grid(*grid)) for grid in [(1, 8, 8), (1, 8, 16), (2, 8, 8)])
    assert (image.patches, twice.patches, frames.patches) == (64, 128, 128)
    assert (twice.pairs, frames.pairs) == (4 * image.pairs, 2 * image.pairs)


def test_the_work_of_a_pass_is_that_of_its_images() -> None:
    assert Work.sum([SMALL, LARGE]) == Work(
        patches=SMALL.patches + LARGE.patches, pairs=SMALL.pairs + LARGE.pairs
    )


@given(costs, works, works)
def test_more_work_never_takes_less(cost: Cost, one: Work, other: Work) -> None:
    assert cost.seconds(Work.sum([one, other])) >= max(cost.seconds(one), cost.seconds(other))


@given(st.lists(st.tuples(works, st.floats(1e-4, 1e3)), max_size=20))
def test_no_measurement_makes_a_cost_negative(passes: list[tuple[Work, float]]) -> None:
    fit = Fit()
    for work, seconds in passes:
        fit = fit.after(work, seconds)
    assert fit.cost.patch_s >= 0 and fit.cost.pair_s >= 0
    assert fit.cost.seconds(SMALL) > 0 and fit.patches_per_s > 0


@given(works, st.floats(1e-4, 1e3))
def test_the_first_pass_sets_the_scale(work: Work, seconds: float) -> None:
    assert Fit().after(work, seconds).cost.seconds(work) == pytest.approx(seconds)


def test_before_any_pass_the_start_value_counts() -> None:
    assert Fit().cost == START
    assert Fit().patches_per_s == pytest.approx(USUAL.patches / START.seconds(USUAL))


@given(costs)
def test_passes_of_two_sizes_tell_products_from_attention(cost: Cost) -> None:
    fit = Fit()
    for _ in range(30):
        for work in (SMALL, LARGE):
            fit = fit.after(work, cost.seconds(work))
    for work in (SMALL, LARGE, Work.of(Grid(1, 32, 32)), Work.of(Grid(8, 16, 32))):
        assert fit.cost.seconds(work) == pytest.approx(cost.seconds(work), rel=0.15)


def test_a_replica_that_becomes_slower_is_believed_within_ten_passes() -> None:
    fast, slow = Cost(patch_s=1e-3, pair_s=1e-7), Cost(patch_s=5e-3, pair_s=5e-7)
    fit = Fit()
    for _ in range(50):
        fit = fit.after(USUAL, fast.seconds(USUAL))
    for _ in range(10):
        fit = fit.after(USUAL, slow.seconds(USUAL))
    assert fit.cost.seconds(USUAL) > 0.6 * slow.seconds(USUAL)
