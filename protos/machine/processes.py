"""Which processes live below one, and how to see them gone. Linux only (/proc)."""

import contextlib
import os
import signal
import time
from pathlib import Path

_PROC = Path("/proc")
# Of a clock's number in Linux: it counts what the scheduler gave all threads of a process.
_SCHEDULED = 2


def descendants(root: int) -> list[int]:
    """Ids of all living processes below `root`, parents before children; zombies are not."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            parent = _parent(pid)
            if parent is not None:
                children.setdefault(parent, []).append(pid)
    found, front = list[int](), [root]
    while front:
        front = [child for parent in front for child in children.get(parent, ())]
        found += front
    return found


def name(pid: int) -> str:
    """The kernel's name of a process, at most 15 characters; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def processor_s(pid: int) -> float:
    """Processor seconds that a process has had, its ended threads' too; 0 when it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULED)
    except OSError:
        return 0.0


def start_time(pid: int) -> int | None:
    """When a process started, clock ticks since boot; None when it is gone or a zombie.

    A pid and its start time name one process for good; a pid alone may be used again.
    """
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal; does nothing when the process ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


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
        send(pid, signal.SIGKILL)
    return left


def _alive(started: dict[int, int]) -> list[int]:
    return [pid for pid, since in started.items() if start_time(pid) == since]


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None for one that is gone or a zombie."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The command's name before them stands in brackets and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields
