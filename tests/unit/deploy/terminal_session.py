"""A command on a terminal of its own, typed into and read by a test."""

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.support.waiting import wait_until

PATIENCE_S = 60.0  # importing the command takes seconds on a busy machine


class TerminalSession:
    """`tandem ARGUMENTS` with standard input, output and error on a pseudo-terminal."""

    def __init__(self, arguments: Sequence[str], **environment: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
        )
        os.close(slave)
        self._shown = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._master)

    def await_text(self, text: str, *, times: int = 1) -> None:
        """Waits until the terminal has shown a text so often."""
        wanted = text.encode()
        wait_until(
            lambda: self._shown.count(wanted) >= times, what=repr(text), timeout_s=PATIENCE_S
        )

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def exit_code(self) -> int:
        """Waits for the end of the command."""
        return self._process.wait(PATIENCE_S)

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 4096)
            except OSError:  # the other end is closed
                return
            if not piece:
                return
            self._shown += piece
