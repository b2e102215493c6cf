"""A decoder process as users run it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.drivers.protocol import end_with_parent

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


class DecoderFailed(Exception):
    """The process ended instead of serving; the text is its last line, a note is its whole log."""


class DecoderProcess:
    """`python -m decoder_service`, stopped at the end; use as a context manager.

    Args:
        bundle: What it serves.
        log: Gets what it writes to stderr.
        flags: Its settings; a free port unless they name one.
        python: What runs it, by default what runs this.
        module: What to run in its place; it must take the same flags.
        environment: Its variables, by default ours.

    Attributes:
        process: For signals.
        log: As given.
        port: Of its gRPC server.
        ready_s: From its start until it serves, seconds.
    """

    def __init__(
        self,
        bundle: Path,
        log: Path,
        flags: Sequence[str] = (),
        *,
        python: str | Path = sys.executable,
        module: str = "decoder_service",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.port = 0
        self.ready_s = 0.0
        command = [str(python), "-m", module, f"--bundle={bundle.resolve()}", "--port=0", *flags]
        self._began = time.perf_counter()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                # Ours has `tests`; another environment's own packages must not be hidden by it.
                cwd=ROOT if python == sys.executable else log.parent,
                preexec_fn=end_with_parent,
                env=os.environ if environment is None else environment,
            )

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends with the process, if that comes first
        self.ready_s = time.perf_counter() - self._began
        if not line:
            self.process.communicate()
            raise self._failure()
        event = json.loads(line)
        assert event["event"] == "serving" and event["tier"] == "decoder"
        self.port = event["ports"]["grpc"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        finally:
            self.process.kill()
            self.process.communicate()

    def run_to_end(self) -> tuple[int, str]:
        """Waits for a process that is not expected to serve.

        Returns:
            Its exit code and what it wrote to stderr.
        """
        self.process.communicate(timeout=START_TIMEOUT_S)
        return self.process.returncode, self.log.read_text()

    def _failure(self) -> DecoderFailed:
        text = self.log.read_text()
        lines = text.strip().splitlines()
        error = DecoderFailed(lines[-1] if lines else f"exit code {self.process.returncode}")
        error.add_note(text)
        return error
