"""A set of Linux namespaces that lives as long as the process that was started in it.

It has no name outside and hangs on process 1 of its own, which ends when its standard input does.
So nothing is left behind, however a test ends: not by `pytest -x`, not by Ctrl-C, not by SIGKILL.
Root makes namespaces directly, anyone else in a user namespace, where the machine allows that.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from protos.machine import processes

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 30.0

# Who is root needs no user namespace, and it is not everywhere allowed to have one.
NEW_USER = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
_OWN_USER = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
_EVERY = ["--net", "--pid", "--mount", "--uts"]


class NoSpaces(Exception):
    """This machine does not let us make namespaces, or lacks a program; the text says which."""


class Space:
    """Namespaces of network, processes, mounts and name; `close` ends every process in them.

    Args:
        name: Their host name.
        folder: Takes what would be shared with other spaces, Ray's sockets say.
        around: The space whose user namespace this one belongs to; None makes one where needed.

    Attributes:
        first: Process 1, as its id is outside.

    Raises:
        NoSpaces: the machine forbids it.
    """

    def __init__(self, name: str, folder: Path, *, around: "Space | None" = None) -> None:
        self.name = name
        self._started: list[subprocess.Popen[bytes]] = []
        program = [sys.executable, "-m", "tests.chaos.process_one", name, str(folder)]
        command = ["unshare", *_EVERY, "--fork", "--kill-child", "--mount-proc", *program]
        if around is None:
            command[1:1] = NEW_USER
        elif _OWN_USER:
            command[:0] = ["nsenter", f"--target={around.first}", *_OWN_USER]
        with (folder / "process_one.log").open("w+") as log:
            self._holder = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
            assert self._holder.stdout is not None
            if self._holder.stdout.readline() != b"ready\n":
                self.close()
                log.seek(0)
                raise NoSpaces(log.read().strip())
        self.first: int = processes.descendants(self._holder.pid)[0]

    def close(self) -> None:
        """Ends the space and all that runs in it, and waits until that is gone."""
        for process in self._started:
            # It stopped if what it waits for was stopped; and the kernel waits for it.
            process.send_signal(signal.SIGCONT)
        self._holder.communicate(timeout=END_TIMEOUT_S)
        for process in self._started:
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()
            process.wait(END_TIMEOUT_S)

    def kill(self) -> None:
        """Ends it as if its plug was pulled: every process is killed at once."""
        os.kill(self.first, signal.SIGKILL)
        self.close()

    def command(self, *command: str, network_only: bool = False) -> list[str]:
        """A command that runs another inside.

        Args:
            network_only: Enter the namespace of the network alone; process ids stay those outside.
        """
        target = ["nsenter", f"--target={self.first}", *_OWN_USER]
        if network_only:
            return [*target, "--net", *command]
        return [*target, *_EVERY, f"--wd={ROOT}", *command]

    def run(self, *command: str) -> None:
        """Runs a command in the network of the space and waits for its end.

        Raises:
            NoSpaces: it failed.
        """
        inside = self.command(*command, network_only=True)
        done = subprocess.run(inside, capture_output=True, text=True)
        if done.returncode:
            raise NoSpaces(f"{' '.join(command)}: {done.stderr.strip()}")

    def popen(
        self, command: Sequence[str], log: IO[bytes] | None, *, network_only: bool = False
    ) -> subprocess.Popen[bytes]:
        """Starts a command inside, with pipes at its input and output."""
        process = subprocess.Popen(
            self.command(*command, network_only=network_only),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        self._started.append(process)
        return process
