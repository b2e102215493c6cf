"""Which address gets the next call."""

import pytest

from gateway.tiers.router import AFFINITY_SLACK, Router, State
from protos.wire.errors import ModelMismatch, Reason


def router(*states: State) -> Router:
    made = Router(
        "decoder",
        [f"host:{at}" for at in range(len(states))],
        unavailable=Reason.DECODER_UNAVAILABLE,
    )
    for endpoint, state in zip(made.endpoints, states, strict=True):
        endpoint.state = state
    return made


def test_the_least_loaded_serving_address_comes_first() -> None:
    made = router(State.SERVING, State.SERVING, State.SERVING)
    for endpoint, (calls, reported) in zip(made.endpoints, [(2, 0), (0, 1), (0, 5)], strict=True):
        endpoint.calls, endpoint.running = calls, reported
    assert [endpoint.address for endpoint in made.ranked()] == ["host:1", "host:0", "host:2"]


def test_equal_loads_take_turns() -> None:
    made = router(State.SERVING, State.SERVING)
    assert {made.ranked()[0].address for _ in range(2)} == {"host:0", "host:1"}


def test_serving_addresses_come_before_those_in_doubt_and_mismatched_ones_never() -> None:
    made = router(State.UNREACHABLE, State.MISMATCHED, State.SERVING)
    made.endpoints[2].calls = 9
    assert [endpoint.address for endpoint in made.ranked()] == ["host:2", "host:0"]


def test_an_address_that_just_failed_comes_last() -> None:
    made = router(State.SERVING, State.UNREACHABLE)
    first, second = made.endpoints
    assert made.ranked(avoid=(first,)) == [second, first]


def choices_of(made: Router, count: int = 32) -> dict[int, str]:
    return {at: made.ranked(affinity=bytes([at]) * 32)[0].address for at in range(count)}


def test_calls_that_begin_alike_go_to_the_same_address() -> None:
    made = router(State.SERVING, State.SERVING, State.SERVING)
    chosen = choices_of(made)
    assert choices_of(made) == chosen
    assert len(set(chosen.values())) == 3


def test_a_lost_address_moves_only_its_own_calls() -> None:
    made = router(State.SERVING, State.SERVING, State.SERVING)
    before = choices_of(made)
    made.endpoints[1].state = State.UNREACHABLE
    after = choices_of(made)
    assert {at for at in before if before[at] != after[at]} == {
        at for at, address in before.items() if address == "host:1"
    }


def test_an_address_with_much_more_to_do_is_left_alone_for_all_affinity() -> None:
    made = router(State.SERVING, State.SERVING)
    wanted = made.ranked(affinity=b"a")[0]
    wanted.calls = AFFINITY_SLACK
    assert made.ranked(affinity=b"a")[0] is wanted
    wanted.calls = AFFINITY_SLACK + 1
    assert made.ranked(affinity=b"a")[0] is not wanted
    assert made.ranked(avoid=(wanted,), affinity=b"a")[-1] is wanted


def test_only_mismatched_addresses_are_a_mismatch() -> None:
    assert isinstance(router(State.MISMATCHED, State.MISMATCHED).failure(), ModelMismatch)
    failure = router(State.MISMATCHED, State.UNREACHABLE).failure()
    assert failure.reason is Reason.DECODER_UNAVAILABLE
    assert failure.retry_after_s is not None


@pytest.mark.parametrize(
    ("states", "status"),
    [
        ((State.UNREACHABLE, State.SERVING), "serving"),
        ((State.UNREACHABLE, State.NOT_SERVING), "not_serving"),
        ((State.UNREACHABLE, State.MISMATCHED), "mismatched"),
        ((State.UNREACHABLE,), "unreachable"),
        ((State.UNKNOWN,), "unknown"),
    ],
)
def test_a_tier_is_as_well_as_its_best_address(states: tuple[State, ...], status: str) -> None:
    assert router(*states).status() == status
