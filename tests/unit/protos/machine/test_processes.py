"""Finding and ending the processes below one."""

import os
import signal
import subprocess
import sys
import time

from protos.machine import processes
from tests.support.waiting import wait_until

TREE = "import subprocess, sys; subprocess.run(['sleep', '60'])"


def test_descendants_are_found_and_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", TREE]) as parent:
        wait_until(lambda: processes.descendants(parent.pid), what="the grandchild")
        tree = [parent.pid, *processes.descendants(parent.pid)]
        assert set(tree) <= set(processes.descendants(os.getpid()))
        wait_until(lambda: processes.name(tree[1]) == "sleep", what="the grandchild's exec")
        started = {pid: since for pid in tree if (since := processes.start_time(pid)) is not None}
        assert sorted(processes.end(started, grace_s=0.0)) == sorted(tree)
        wait_until(
            lambda: all(processes.start_time(pid) is None for pid in tree), what="the tree's end"
        )


def test_a_process_s_processor_seconds_are_those_it_counts_itself() -> None:
    before = time.process_time()
    sum(range(100_000))
    seen = processes.processor_s(os.getpid())
    assert before < seen < time.process_time()


def test_a_process_that_is_gone_is_not_killed_again() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert processes.start_time(gone.pid) is None
    assert processes.name(gone.pid) == ""
    assert processes.processor_s(gone.pid) == 0.0
    assert processes.end({gone.pid: 1}, grace_s=0.0) == []


def test_a_zombie_is_no_living_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in processes.descendants(os.getpid())
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not collected yet
        assert child.pid not in processes.descendants(os.getpid())


def test_a_pid_that_was_used_again_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        since = processes.start_time(other.pid)
        assert since is not None
        assert processes.end({other.pid: since - 1}, grace_s=0.0) == []
        assert other.poll() is None
        other.kill()
