"""A decoder process as users run it, started for a measurement."""

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
STOP_TIMEOUT_S = 30


class DecoderFailed(Exception):
    """The process ended instead of serving; the text is its last line."""


class Decoder:
    """`python -m decoder_service` on a free port. Use as a context manager.

    Args:
        module: What to run in its place; it must take the same flags.
    """

    def __init__(
        self,
        bundle: Path,
        log: Path,
        flags: Sequence[str] = (),
        *,
        module: str = "decoder_service",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        command = [sys.executable, "-m", module, f"--bundle={bundle.resolve()}", "--port=0", *flags]
        self._began = time.perf_counter()
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                preexec_fn=end_with_parent,
                env={**os.environ, **(environment or {})},
            )
        self.port = 0
        self.ready_s = 0.0

    def __enter__(self) -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # ends with the process, if that comes first
        self.ready_s = time.perf_counter() - self._began
        if not line:
            self.process.wait()
            raise DecoderFailed(self._last_words())
        self.port = json.loads(line)["ports"]["grpc"]
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
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _last_words(self) -> str:
        lines = self._log.read_text().strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.returncode}"
