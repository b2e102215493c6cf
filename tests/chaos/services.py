"""A service in a host, as `tandem serve` starts it: started, signalled, started again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from protos.machine import processes
from tests.chaos.hosts import Host

STOP_TIMEOUT_S = 120.0
SERVING = '"event": "serving"'
COMMAND = (sys.executable, "-m", "deploy.cli")
TANDEM = (*COMMAND, "serve")


class ServiceFailed(Exception):
    """A service ended instead of serving; the text is the end of its log."""


class Service:
    """A process that says when it serves.

    Args:
        name: Of the service and its log.
        host: Where it runs.
        command: Program and arguments, asked for at each start.
        environment: Beside ours.
        ready: What is in the line of its output that says so.

    Attributes:
        log: What it and its predecessors wrote to stderr.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        *,
        ready: str = SERVING,
    ) -> None:
        self.name, self.host = name, host
        self._ready = ready.encode()
        self.log = host.folder / f"{name}.log"
        self._command = command
        self._variables = [f"{key}={value}" for key, value in environment.items()]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it without waiting until it serves."""
        with self.log.open("ab") as log:
            command = ["env", *self._variables, *self._command()]
            self._process = self.host.space.popen(command, log)

    def wait_until_serving(self) -> None:
        """Returns when it serves.

        Raises:
            ServiceFailed: it ended instead.
        """
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:  # ends with the process, if that comes first
            if self._ready in line:
                return
        raise ServiceFailed(f"{self.name}: {self.log.read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        """Of the service itself."""
        assert self._process is not None
        return processes.descendants(self._process.pid)[0]  # below the program that entered

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short; returns when it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        self._ended()

    def stop(self) -> None:
        """SIGTERM; returns when it has drained."""
        os.kill(self.pid, signal.SIGTERM)
        self._ended()

    def restart(self) -> None:
        """Drained, started again, and serving."""
        self.stop()
        self.start()
        self.wait_until_serving()

    def run_beside(self, command: Sequence[str]) -> None:
        """Runs a program on the same host, with the same environment, to its end.

        Raises:
            ServiceFailed: it failed.
        """
        with self.log.open("ab") as log:
            process = self.host.space.popen(["env", *self._variables, *command], log)
            process.communicate(timeout=STOP_TIMEOUT_S)
        if process.returncode:
            raise ServiceFailed(f"{' '.join(command)}: {self.log.read_text()[-2000:]}")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped by SIGSTOP while it is entered."""
        assert self._process is not None
        with stopped(self.pid):
            yield
        self._process.send_signal(signal.SIGCONT)  # it stops with whom it waits for

    def _ended(self) -> None:
        assert self._process is not None
        # Stopped with the process that it waits for, and not continued with it.
        self._process.send_signal(signal.SIGCONT)
        self._process.communicate(timeout=STOP_TIMEOUT_S)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP for a process while it is entered, SIGCONT after."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        processes.send(pid, signal.SIGCONT)
