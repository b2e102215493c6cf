"""Who is set aside, for how long, and who never is."""

from gateway.fleet.standing import (
    FIRST_EJECTION_S,
    FORGIVEN_AFTER_S,
    JITTER,
    MOST_EJECTION_S,
    Ejector,
    Fault,
    Standing,
    Trust,
)


def fleet(size: int) -> list[Standing]:
    return [Standing() for _ in range(size)]


def ejector(chance: float = 0.5) -> Ejector:
    return Ejector(chance=lambda: chance)


def fault(judge: Ejector, who: Standing, all_of: list[Standing], kind: Fault, now_s: float) -> bool:
    peers = [each for each in all_of if each is not who]
    return judge.faulted(who, kind, peers=peers, now_s=now_s)


def test_one_failed_call_is_forgiven_and_two_in_a_row_are_not() -> None:
    judge, (first, *_), three = ejector(), (made := fleet(3)), made
    assert not fault(judge, first, three, Fault.UNAVAILABLE, 0.0)
    judge.succeeded(first, now_s=0.1)
    assert not fault(judge, first, three, Fault.UNAVAILABLE, 0.2)
    assert fault(judge, first, three, Fault.BROKEN, 0.3)
    assert first.trust is Trust.EJECTED and not first.takes(0)
    assert judge.ejections == {Fault.BROKEN: 1}


def test_silence_is_enough_at_once() -> None:
    two = fleet(2)
    assert fault(ejector(), two[0], two, Fault.SILENT, 0.0)


def test_back_after_a_look_on_trial_one_call_at_a_time() -> None:
    judge, two = ejector(), fleet(2)
    fault(judge, two[0], two, Fault.SILENT, 0.0)
    judge.looked(two[0], now_s=FIRST_EJECTION_S - 0.01)
    assert not two[0].takes(0)
    judge.looked(two[0], now_s=FIRST_EJECTION_S)
    assert two[0].takes(0) and not two[0].takes(1)
    judge.succeeded(two[0], now_s=2.0)
    assert two[0].trust is Trust.TRUSTED


def test_a_failed_trial_takes_twice_as_long_up_to_a_minute_and_is_forgiven_in_time() -> None:
    judge, two, now_s = ejector(), fleet(2), 0.0
    lengths = []
    for _ in range(8):
        assert fault(judge, two[0], two, Fault.SILENT, now_s)
        lengths.append(two[0].ejected_until_s - now_s)
        now_s = two[0].ejected_until_s
        judge.looked(two[0], now_s=now_s)
    assert lengths[:3] == [FIRST_EJECTION_S, 2 * FIRST_EJECTION_S, 4 * FIRST_EJECTION_S]
    assert lengths[-1] == MOST_EJECTION_S
    judge.succeeded(two[0], now_s=now_s)
    judge.succeeded(two[0], now_s=now_s + FORGIVEN_AFTER_S + 1)
    fault(judge, two[0], two, Fault.SILENT, now_s)
    assert two[0].ejected_until_s - now_s == FIRST_EJECTION_S


def test_gateways_do_not_try_all_at_the_same_moment() -> None:
    until = []
    for chance in (0.0, 0.999):
        two = fleet(2)
        fault(ejector(chance), two[0], two, Fault.SILENT, 0.0)
        until.append(two[0].ejected_until_s)
    assert until[0] == FIRST_EJECTION_S * (1 - JITTER)
    assert until[1] > FIRST_EJECTION_S * (1 + 0.9 * JITTER)


def test_at_most_half_are_set_aside_and_never_the_last() -> None:
    for size, most in [(1, 0), (2, 1), (3, 1), (4, 2), (9, 4)]:
        judge, made = ejector(), fleet(size)
        ejected = sum(fault(judge, each, made, Fault.SILENT, 0.0) for each in made)
        assert ejected == most


def looking(standing: Standing, *seconds: float, begun_s: float | None = None) -> Standing:
    standing.looks_s.extend(seconds)
    standing.look_begun_s = begun_s
    return standing


def test_a_look_without_answer_is_slow_when_others_have_theirs() -> None:
    three = [looking(each, 0.01) for each in fleet(3)]
    looking(three[0], begun_s=10.0)
    assert ejector().judge(three, now_s=10.9) == []
    assert ejector().judge(three, now_s=11.1) == [three[0]]


def test_on_a_busy_machine_nobody_is_slow() -> None:
    """Every look takes seconds: none of them is answered, or all are late alike."""
    three = [looking(each, 0.01, begun_s=10.0) for each in fleet(3)]
    assert ejector().judge(three, now_s=14.0) == []
    late = [looking(each, 2.0, 2.5, 3.0, 2.0, 4.0) for each in fleet(3)]
    looking(late[0], begun_s=10.0)
    assert ejector().judge(late, now_s=15.0) == []


def test_looks_that_take_eight_times_as_long_as_the_peers_are_slow() -> None:
    three = [looking(each, *[0.3] * 5) for each in fleet(3)]
    looking(three[1], *[2.0] * 5)
    assert ejector().judge(three, now_s=0.0) == []
    looking(three[1], *[2.5] * 5)
    assert ejector().judge(three, now_s=0.0) == [three[1]]


def test_first_messages_count_like_looks() -> None:
    two = [looking(each, *[0.01] * 5) for each in fleet(2)]
    two[0].words_s.extend([2.5] * 5)
    assert ejector().judge(two, now_s=0.0) == []
    two[1].words_s.extend([0.02] * 5)
    assert ejector().judge(two, now_s=0.0) == [two[0]]


def test_alone_nobody_is_slow() -> None:
    alone = looking(Standing(), 0.01, begun_s=0.0)
    assert ejector().judge([alone], now_s=100.0) == []
