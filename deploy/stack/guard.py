"""Stands between the launcher and one service, so that nothing of the service is left behind.

    python -m deploy.stack.guard LAUNCHER_PID COMMAND...

Services start processes of their own (Ray starts a dozen), in sessions of their own. The guard
adopts every orphan among them (PR_SET_CHILD_SUBREAPER), and ends them all when the service is
gone, when it is told to (SIGTERM: the service may drain; a second SIGTERM: at once), or when
the launcher is gone, be it by SIGKILL (PR_SET_PDEATHSIG). Its exit code is the service's.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from protos.machine.processes import descendants, send

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

ORPHAN_GRACE_S = 3.0  # what a service may still do once its launcher is gone
TERMINATE_GRACE_S = 2.0  # between SIGTERM and SIGKILL for what a service left behind
POLL_S = 0.05

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code, 128 + N when signal N ended it."""
    launcher, command = int(argv[0]), list(argv[1:])
    watched = {*STOP_SIGNALS, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher:  # it died before the line above took effect
        return 1
    service = _spawn(command, watched)
    sys.stdout.write(json.dumps({"event": "started", "pid": service}) + "\n")
    sys.stdout.flush()
    status = _attend(service, launcher, watched)
    end_descendants(os.getpid())
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _spawn(command: Sequence[str], watched: set[signal.Signals]) -> int:
    guard = os.getpid()
    pid = os.fork()  # this process has one thread, so the child may run Python before it execs
    if pid == 0:
        _become(command, watched, guard)
    return pid


def _become(command: Sequence[str], watched: set[signal.Signals], guard: int) -> NoReturn:
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    os._exit(127)


def _attend(service: int, launcher: int, watched: set[signal.Signals]) -> int:
    """Forwards stop signals until the service ends; returns its wait status."""
    stops, deadline = 0, float("inf")
    while True:
        info = signal.sigtimedwait(watched, min(max(deadline - time.monotonic(), 0.0), 60.0))
        status = _reap(service)
        if status is not None:
            return status
        if info is not None and info.si_signo in STOP_SIGNALS:
            stops += 1
            os.kill(service, signal.SIGTERM)
            if os.getppid() != launcher:
                deadline = time.monotonic() + ORPHAN_GRACE_S
        if stops > 1 or time.monotonic() >= deadline:
            os.kill(service, signal.SIGKILL)
            return os.waitpid(service, 0)[1]


def _reap(service: int) -> int | None:
    """Collects ended children; the service's wait status when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == service:
            found = status


def end_descendants(root: int) -> None:
    """Ends every process below `root` (this process): SIGTERM, a moment, then SIGKILL."""
    deadline = time.monotonic() + TERMINATE_GRACE_S
    told: set[int] = set()
    while True:
        _reap(0)
        left = descendants(root)
        if not left:
            return
        late = time.monotonic() >= deadline
        for pid in left:
            if late or pid not in told:
                send(pid, signal.SIGKILL if late else signal.SIGTERM)
                told.add(pid)
        time.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
