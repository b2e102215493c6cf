"""Where an image goes: by predicted finish, and what is known of the replicas for it."""

from hypothesis import given
from hypothesis import strategies as st

from protos.media.images import Grid
from vision_service.scaling.cost import Cost, Work
from vision_service.scaling.placement import Board, Outlook, Report, in_order

FAST, SLOW = Cost(patch_s=0.001, pair_s=0.0), Cost(patch_s=0.004, pair_s=0.0)
SMALL, LARGE = Work.of(Grid(1, 10, 10)), Work.of(Grid(1, 40, 50))  # 0.1 s and 2 s of FAST
FOR_EVER = 1e9

outlooks = st.dictionaries(
    st.integers(0, 5),
    st.builds(
        Outlook,
        ahead_s=st.floats(0.0, 10.0),
        cost=st.sampled_from([FAST, SLOW]),
        fresh=st.booleans(),
    ),
)


def outlook(ahead_s: float, cost: Cost = FAST, *, fresh: bool = True) -> Outlook:
    return Outlook(ahead_s=ahead_s, cost=cost, fresh=fresh)


def report(beat: int, ahead_s: float, seen: int = 0, front: str = "me") -> Report:
    return Report(beat=beat, ahead_s=ahead_s, cost=FAST, seen={front: seen})


def board(*replicas: str) -> Board[str]:
    made: Board[str] = Board("me", stale_s=5.0, suspect_s=1.5)
    made.keep(replicas, 0.0)
    return made


def ahead(made: Board[str], now_s: float) -> dict[str, float]:
    return {name: round(one.ahead_s, 6) for name, one in made.outlooks(now_s).items()}


def test_a_large_image_waits_for_a_fast_replica_and_a_small_one_does_not() -> None:
    replicas = {"fast": outlook(1.0, FAST), "slow": outlook(0.0, SLOW)}
    assert in_order(replicas, LARGE, ahead_s=FOR_EVER) == ["fast", "slow"]
    assert in_order(replicas, SMALL, ahead_s=FOR_EVER) == ["slow", "fast"]


def test_what_no_replica_can_begin_soon_waits_in_front() -> None:
    assert in_order({"a": outlook(1.1), "b": outlook(2.0)}, SMALL, ahead_s=1.0) == []


def test_nothing_is_chosen_where_nobody_reports() -> None:
    assert in_order({}, SMALL, ahead_s=1.0) is None
    assert in_order({"a": outlook(0.0, fresh=False)}, SMALL, ahead_s=1.0) is None


def test_a_replica_that_failed_the_image_gets_it_again_only_where_there_is_no_other() -> None:
    replicas = {"a": outlook(0.0), "b": outlook(0.9)}
    assert in_order(replicas, SMALL, avoid={"a"}, ahead_s=1.0) == ["b"]
    assert in_order({"a": outlook(0.0)}, SMALL, avoid={"a"}, ahead_s=1.0) == ["a"]


@given(outlooks, st.sampled_from([SMALL, LARGE]), st.floats(0.0, 10.0))
def test_the_chosen_one_finishes_first_of_those_that_may_be_chosen(
    replicas: dict[int, Outlook], work: Work, ahead_s: float
) -> None:
    order = in_order(replicas, work, ahead_s=ahead_s)
    may = [one for one in replicas.values() if one.fresh and one.ahead_s <= ahead_s]
    assert len(order or []) == len(may)
    if order:
        assert replicas[order[0]].finish_s(work) == min(one.finish_s(work) for one in may)


def test_work_of_a_report_passes_with_time() -> None:
    made = board("a")
    made.heard("a", report(1, 3.0), 10.0)
    assert ahead(made, 10.0) == {"a": 3.0}
    made.heard("a", report(1, 3.0), 12.0)  # the same report once more
    assert ahead(made, 12.0) == {"a": 1.0}
    assert ahead(made, 14.0) == {"a": 0.0}


def test_what_was_sent_counts_until_a_report_has_it_or_it_is_done() -> None:
    made = board("a", "b")
    for name in ("a", "b"):
        made.heard(name, report(1, 0.0), 0.0)
    made.sent(1, "a", LARGE, 0.0)
    made.sent(2, "a", SMALL, 0.0)
    assert ahead(made, 0.0) == {"a": 2.1, "b": 0.0}
    made.heard("a", report(2, 2.0, seen=1), 0.0)
    assert ahead(made, 0.0) == {"a": 2.1, "b": 0.0}
    made.done(2)
    assert ahead(made, 0.0) == {"a": 2.0, "b": 0.0}


def test_what_other_fronts_sent_is_not_taken_for_ours() -> None:
    made = board("a")
    made.sent(1, "a", SMALL, 0.0)
    made.heard("a", report(1, 1.0, seen=9, front="another"), 0.0)
    assert ahead(made, 0.0) == {"a": 1.1}


def test_an_image_that_is_sent_again_moves() -> None:
    made = board("a", "b")
    for name in ("a", "b"):
        made.heard(name, report(1, 0.0), 0.0)
    made.sent(1, "a", LARGE, 0.0)
    made.sent(1, "b", LARGE, 0.0)
    assert ahead(made, 0.0) == {"a": 0.0, "b": 2.0}


def test_a_replica_that_stops_reporting_is_stale_and_a_new_one_is_not() -> None:
    made = board("old")
    made.heard("old", report(1, 0.0), 0.0)
    made.keep(["old", "new"], 5.1)
    assert made.is_stale("old", 5.1) and not made.is_stale("new", 5.1)
    made.heard("old", report(2, 0.0), 5.2)
    assert not made.is_stale("old", 5.2)
    assert made.is_stale("gone", 5.2)


def test_an_overdue_image_makes_a_silent_replica_suspect_sooner() -> None:
    made = board("a")
    made.heard("a", report(1, 0.0), 0.0)
    made.sent(1, "a", SMALL, 0.0)  # due after 1.3 s
    assert not made.is_stale("a", 1.4)
    assert made.is_stale("a", 1.6)
    made.heard("a", report(2, 0.1), 1.6)
    assert not made.is_stale("a", 1.7)
