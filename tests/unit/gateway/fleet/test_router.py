"""Which address gets the next call."""

import pytest

from gateway.fleet.router import AFFINITY_SLACK, Router, State
from gateway.fleet.standing import Trust
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


def gateway(addresses: list[str]) -> Router:
    made = Router("decoder", addresses, unavailable=Reason.DECODER_UNAVAILABLE)
    for endpoint in made.endpoints:
        endpoint.state = State.SERVING
    return made


def test_gateways_agree_whatever_the_order_and_a_new_address_moves_its_share_only() -> None:
    listed = [f"10.0.0.{at}:50052" for at in range(1, 5)]
    first, second = gateway(listed), gateway(listed[::-1])
    for _ in range(3):
        second.ranked()  # another history of turns
    before = choices_of(first, 256)
    assert choices_of(second, 256) == before
    first.update([*listed, "10.0.0.5:50052"])
    first.endpoints[-1].state = State.SERVING
    third = gateway(["10.0.0.5:50052", *listed])
    after = choices_of(first, 256)
    assert choices_of(third, 256) == after
    moved = {at for at in before if before[at] != after[at]}
    assert {after[at] for at in moved} == {"10.0.0.5:50052"}
    assert 256 / 5 / 2 < len(moved) < 2 * 256 / 5


def test_what_is_known_of_an_address_that_stays_is_kept() -> None:
    made = router(State.SERVING, State.SERVING)
    first, second = made.endpoints
    first.has_served = True
    change = made.update(["host:1", "host:2"])
    assert change.left == (first,)
    assert [endpoint.address for endpoint in change.joined] == ["host:2"]
    assert made.endpoints == (second, *change.joined)
    assert second not in made.update(["host:2"]).joined
    assert made.has_served()


def test_a_tier_without_addresses_is_not_ready() -> None:
    made = router()
    assert made.ranked(affinity=b"a") == []
    assert made.failure().reason is Reason.DECODER_UNAVAILABLE


def test_ejected_addresses_come_after_those_that_are_trusted() -> None:
    made = router(State.SERVING, State.SERVING, State.UNREACHABLE)
    first, second, third = made.endpoints
    second.calls = 9
    first.standing.trust = Trust.EJECTED
    assert made.ranked() == [second, first, third]
    first.standing.trust = Trust.TRIAL
    assert made.ranked()[0] is first
    first.calls = 1
    assert made.ranked() == [second, first, third]


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
