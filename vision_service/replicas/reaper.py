"""Ends what Ray leaves behind when this process is killed without a chance to clean up.

Most of Ray's processes end with their parent, but its agents linger for a minute. The reaper is a
fork made before anything is imported, so it costs next to nothing. It learns through a pipe which
processes exist; when the pipe closes, the service is gone, and whatever of them is left is killed.
"""

import contextlib
import json
import os
import shutil
import signal
from dataclasses import dataclass
from typing import NoReturn

from protos.machine import processes

_GRACE_S = 1.0  # for those that end by themselves
_STANDARD_STREAMS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What must not outlive the service: processes, as start time by pid, and a folder."""

    started: dict[int, int]
    folder: str


class Reaper:
    """The service's end of the pipe."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe

    def tell(self, belongings: Belongings) -> None:
        """Replaces what the reaper knows; does nothing when somebody killed the reaper."""
        line = json.dumps([list(belongings.started.items()), belongings.folder]) + "\n"
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line.encode())


def start() -> Reaper:
    """Forks the reaper; must run while this process has one thread."""
    reading, writing = os.pipe()  # neither end is inherited by programs that are executed
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        _run(reading)
    os.close(reading)
    return Reaper(pid, writing)


def _run(pipe: int) -> NoReturn:
    """The forked process; it must never return into the service's code."""
    try:
        os.setsid()  # a terminal's Ctrl-C is for the service, which may still need it
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in _STANDARD_STREAMS:  # who reads the service's output must see it end
            os.dup2(null, stream)
        _end(_last_line(pipe))
    finally:
        os._exit(0)


def _last_line(pipe: int) -> Belongings:
    """Reads until the service is gone; returns what it said last."""
    data = b""
    while piece := os.read(pipe, 65536):
        data += piece
        complete, newline, rest = data.rpartition(b"\n")
        data = complete.rpartition(b"\n")[2] + newline + rest
    line = data.rpartition(b"\n")[0] or b'[[], ""]'
    pairs, folder = json.loads(line)
    return Belongings(started=dict(pairs), folder=folder)


def _end(belongings: Belongings) -> None:
    processes.end(belongings.started, grace_s=_GRACE_S)
    if belongings.folder:
        shutil.rmtree(belongings.folder, ignore_errors=True)
