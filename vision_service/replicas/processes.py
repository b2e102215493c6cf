"""Which processes live below this one, and how to see them gone. Linux only (/proc)."""

import os
import signal
import time
from pathlib import Path

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Direct children of a process, also those started by its other threads."""
    found = []
    for task in _PROC.glob(f"{pid}/task/*/children"):
        try:
            found += [int(text) for text in task.read_text().split()]
        except OSError:  # the thread ended meanwhile
            continue
    return found


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on."""
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in children(parent)]
        found += front
    return found


def name(pid: int) -> str:
    """The kernel's name of a process, at most 15 characters; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """When a process started, clock ticks since boot; None when it is gone or a zombie.

    A pid and its start time name one process for good; a pid alone may be used again.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def end(started: dict[int, int], *, grace_s: float) -> list[int]:
    """Waits until processes are gone and kills those that stay.

    Args:
        started: Start time of each pid, as `start_time` gave it earlier.
        grace_s: How long they get before SIGKILL, seconds.

    Returns:
        The pids that had to be killed.
    """
    deadline = time.monotonic() + grace_s
    while (left := _alive(started)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return left


def _alive(started: dict[int, int]) -> list[int]:
    return [pid for pid, since in started.items() if start_time(pid) == since]
