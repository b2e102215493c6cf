"""A run that nobody waits for is stopped; one that somebody waits for is left alone."""

import threading
import time

import pytest

from vision_service.towers.watch import Abandoned, watching

WAIT_S = 10.0


def test_a_run_is_stopped_when_nobody_waits_any_more() -> None:
    gone, stopped = threading.Event(), threading.Event()
    with pytest.raises(Abandoned), watching(gone.is_set, stopped.set):
        assert not stopped.wait(0.1)
        gone.set()
        assert stopped.wait(WAIT_S)
        raise RuntimeError("what a stopped run ends with")


def test_a_run_that_ends_by_itself_is_left_alone() -> None:
    stopped = threading.Event()
    with watching(lambda: False, stopped.set):
        time.sleep(0.05)
    assert not stopped.is_set()
    assert all(thread.name != "abandoned" for thread in threading.enumerate())


def test_other_failures_pass_through() -> None:
    with pytest.raises(RuntimeError), watching(lambda: False, lambda: None):
        raise RuntimeError


def test_a_result_that_came_too_late_is_dropped() -> None:
    stopped = threading.Event()
    with pytest.raises(Abandoned), watching(lambda: True, stopped.set):
        assert stopped.wait(WAIT_S)
