"""The engines' processes: started, asked, and halted while another one is measured."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.drivers.protocol import end_with_parent

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 30
LOAD_TIMEOUT_S = 300


class EngineFailed(Exception):
    """An engine could not be started, asked, or did not answer; the text is one line."""


class EngineProcess:
    """A driver (see tests/bench/drivers/protocol.py) with the processes below it.

    It stands still (SIGSTOP) unless it is being asked, so that it cannot disturb the engine that
    is measured.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                start_new_session=True,  # one group to halt and to end
                preexec_fn=end_with_parent,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            answer = self._answer(LOAD_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.description = str(answer["ready"])
        self._signal(signal.SIGSTOP)

    @property
    def pid(self) -> int:
        """Of the driver, whose group all its processes share."""
        return self._process.pid

    def ask(self, command: Mapping[str, object], timeout_s: float = 600.0) -> list[float]:
        """Performs one command.

        Raises:
            EngineFailed: the engine could not do it, ended, or took longer than `timeout_s`.
        """
        self._signal(signal.SIGCONT)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            seconds: list[float] = self._answer(timeout_s)["seconds"]
        except BrokenPipeError as error:
            raise EngineFailed(f"{self.name} has ended") from error
        finally:
            self._signal(signal.SIGSTOP)
        return seconds

    def stop(self) -> None:
        """Ends the driver and whatever it started; safe to call twice."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # it has ended with a command unread
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # killed below, with its children
            self._process.wait(STOP_TIMEOUT_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self, timeout_s: float) -> dict[str, list[float]]:
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise EngineFailed(f"{self.name} gave no answer within {timeout_s:.0f} s") from None
        if not line:
            raise EngineFailed(f"{self.name} ended; its log says why")
        answer: dict[str, list[float]] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(f"{self.name}: {answer['error']}")
        return answer

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended; the next answer says so
            os.killpg(self._process.pid, number)
