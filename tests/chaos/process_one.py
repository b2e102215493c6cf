"""Process 1 of a host in a network namespace: `python -m tests.chaos.process_one NAME FOLDER`.

It gives the host a name, folders of its own where Ray keeps sockets and shared memory, says
`ready`, and reaps whoever loses its parent. When its standard input ends, because whoever started
it is gone, it ends too, and the kernel kills every process of the host with it.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

RAY = "/tmp/ray"  # where `ray start` keeps what nodes of one machine would share


def main() -> None:
    """Runs until standard input ends."""
    name, folder = sys.argv[1:]
    socket.sethostname(name)
    for command in (
        ["ip", "link", "set", "lo", "up"],
        ["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"],
        ["mount", "--bind", folder, _made(RAY)],
    ):
        subprocess.run(command, check=True)
    signal.signal(signal.SIGCHLD, _reap)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def _made(folder: str) -> str:
    Path(folder).mkdir(exist_ok=True)
    return folder


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
