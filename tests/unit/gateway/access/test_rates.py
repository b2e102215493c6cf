"""Buckets that fill steadily."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rates import Bucket


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_minutes_worth_may_be_taken_at_once_and_comes_back_steadily() -> None:
    clock = Clock()
    bucket = Bucket(60, clock=clock)
    for _ in range(60):
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert (bucket.remaining(), bucket.wait_s(1), bucket.full_in_s()) == (0, 1.0, 60.0)
    clock.now_s = 30.0
    assert (bucket.remaining(), bucket.wait_s(31), bucket.full_in_s()) == (30, 1.0, 30.0)
    clock.now_s = 1000.0
    assert (bucket.remaining(), bucket.full_in_s()) == (60, 0.0)


def test_what_costs_more_than_a_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    clock = Clock()
    bucket = Bucket(60, clock=clock)
    bucket.take(10)
    assert bucket.wait_s(150) == 10.0
    clock.now_s = 10.0
    assert bucket.wait_s(150) == 0
    bucket.take(150)
    assert (bucket.remaining(), bucket.wait_s(1)) == (0, 91.0)


def test_a_bucket_of_another_rate_keeps_what_was_used() -> None:
    bucket = Bucket(100, clock=Clock())
    bucket.take(75)
    assert bucket.resized(1000).remaining() == 250
    assert bucket.resized(4).remaining() == 1


@given(
    rate=st.integers(1, 10**6),
    steps=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 2000)), max_size=30),
)
def test_who_waits_as_told_is_let_in_and_the_rate_holds(
    rate: int, steps: list[tuple[float, int]]
) -> None:
    clock = Clock()
    bucket = Bucket(rate, clock=clock)
    taken, largest = 0, 0
    for pause_s, cost in steps:
        clock.now_s += pause_s
        clock.now_s += bucket.wait_s(cost)
        assert bucket.wait_s(cost) == 0
        bucket.take(cost)
        taken, largest = taken + cost, max(largest, cost)
        allowed = clock.now_s * rate / 60 + max(rate, largest)
        assert taken <= allowed + 1e-3 + 1e-9 * allowed
