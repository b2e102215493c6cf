"""A pass that nobody waits for is stopped; one that somebody waits for is left alone."""

import threading

import pytest

from vision_service.towers.members import Abandoned, Members


class Stop:
    """Counts how often a pass is told to end."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_pass_is_stopped_when_the_last_image_leaves() -> None:
    members, stop, entered = Members(2), threading.Event(), threading.Event()

    def leave() -> None:
        entered.wait()
        members.leave(1)
        members.leave(0)

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(Abandoned), members.ending(stop.set):
        entered.set()
        assert stop.wait(10)
        raise RuntimeError("what a stopped run ends with")
    thread.join()


def test_a_pass_that_somebody_waits_for_is_left_alone() -> None:
    members, stop = Members(3), Stop()
    with members.ending(stop):
        members.leave(0)
        members.leave(2)
    assert (members.remaining, stop.count) == ([1], 0)
    assert not members.are_complete
    members.leave(1)
    assert stop.count == 0  # the pass has ended


def test_a_pass_whose_images_left_before_it_began_is_stopped_at_once() -> None:
    members, stop = Members(2), Stop()
    members.abandon()
    with pytest.raises(Abandoned), members.ending(stop):
        assert stop.count == 1


def test_a_result_that_came_too_late_is_dropped() -> None:
    members = Members(1)
    with pytest.raises(Abandoned), members.ending(lambda: None):
        members.leave(0)


def test_other_failures_pass_through() -> None:
    with pytest.raises(RuntimeError), Members(1).ending(lambda: None):
        raise RuntimeError


def test_the_step_that_comes_first_counts() -> None:
    members = Members(2)
    members.leave(0, step=5)
    members.leave(0, step=9)
    assert members.leaves_at[0] == 5
    members.leave(0)
    assert members.leaves_at[0] == 0
    assert members.remaining == [1]
