"""One service as a child process: start, readiness, logs, stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType
from typing import IO, Any

from deploy.stack.log_file import LogFile

SERVICES = ("vision_service", "decoder_service", "gateway")  # names their loggers begin with
LAST_LINES = 20  # kept in memory, to say why a tier stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReady:
    """A tier serves.

    `ports` maps "grpc" and "http" to port numbers; `seconds` is the time since its start.
    """

    tier: str
    ports: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStarting:
    """A tier is not ready yet; `seconds` is the time since its start.

    `doing` is the last message of its log, "" before there is one.
    """

    tier: str
    seconds: float
    doing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TierExited:
    """A tier's process has ended; `code` is 128 + N when signal N ended it."""

    tier: str
    code: int
    reason: str  # its last plain line on stderr, "" when there is none


TierEvent = TierReady | TierExited
Echo = Callable[[str, str], None]


class Tier:
    """A service and its guard (see deploy/stack/guard.py); events go to a queue.

    Start it from a thread that lives as long as the service shall: the kernel ties the guard
    to that thread.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        events: SimpleQueue[TierEvent],
        log_file: Path | None = None,
        keep_log: bool = False,  # write behind what is there
        echo: Echo | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),  # beside this process's own
    ) -> None:
        self.name = name
        self.pid: int | None = None  # the service's own process, known once it has started
        self._command = command
        self._events = events
        self._log_file = log_file
        self._keep_log = keep_log
        self._echo = echo
        self._environment = environment
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._doing = ""
        self._asked = False  # to drain
        self._started = 0.0
        self._process: subprocess.Popen[str] | None = None
        self._waiter: threading.Thread | None = None

    def start(self) -> None:
        """Spawns guard and service; returns at once."""
        guard = [sys.executable, "-P", "-m", "deploy.stack.guard", str(os.getpid())]
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [*guard, *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **self._environment},
            start_new_session=True,  # Ctrl-C in the terminal reaches the launcher alone
        )
        readers = [
            _start_reader(self._read_stdout, self._process.stdout),
            _start_reader(self._read_stderr, self._process.stderr),
        ]
        self._waiter = threading.Thread(target=self._wait, args=(readers,), daemon=True)
        self._waiter.start()

    def starting(self) -> TierStarting:
        """How far its start is."""
        seconds = time.monotonic() - self._started
        return TierStarting(tier=self.name, seconds=seconds, doing=self._doing)

    def terminate(self) -> None:
        """Asks the service to drain; does nothing when it was asked before."""
        if self._process is not None and self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the service; False when the time is up first."""
        if self._waiter is None:
            return True
        self._waiter.join(timeout_s)
        return not self._waiter.is_alive()

    def kill(self) -> None:
        """Ends the service and all its processes, now."""
        if self._process is None or self._process.poll() is not None:
            return
        # The guard's second SIGTERM ends the service at once; the first here may be the drain
        # signal, and signals that arrive together are merged: hence as many as it takes.
        while not self.wait(0.2):
            self._process.send_signal(signal.SIGTERM)

    def _read_stdout(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._handle(_event_of(line))

    def _handle(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "started":
            self.pid = event["pid"]
        elif event.get("event") == "serving":
            seconds = time.monotonic() - self._started
            self._events.put(TierReady(tier=self.name, ports=event["ports"], seconds=seconds))

    def _read_stderr(self, stream: IO[str]) -> None:
        log = LogFile(self._log_file, keeps=self._keep_log)
        with stream, closing(log):
            for line in stream:
                self._last.append(line.rstrip("\n"))
                self._doing = _own_message(line) or self._doing
                log.write(line)
                if self._echo is not None:
                    self._echo(self.name, line.rstrip("\n"))

    def _wait(self, readers: Sequence[threading.Thread]) -> None:
        process = self._process
        if process is None:
            return
        code = process.wait()
        for reader in readers:  # the guard left no process that could hold a pipe open
            reader.join(2.0)
        self._events.put(TierExited(tier=self.name, code=code, reason=self._reason()))

    def _reason(self) -> str:
        plain = [line for line in self._last if line.strip() and not line.startswith(("{", " "))]
        return plain[-1].strip() if plain else ""


def _start_reader(target: Callable[[IO[str]], None], stream: IO[str] | None) -> threading.Thread:
    thread = threading.Thread(target=target, args=(stream,), daemon=True)
    thread.start()
    return thread


def _own_message(line: str) -> str:
    """What a service logs of itself; "" for other lines and for its libraries' records."""
    record = _event_of(line)
    owner = str(record.get("logger", "")).partition(".")[0]
    return str(record.get("message", "")) if owner in SERVICES else ""


def _event_of(line: str) -> dict[str, Any]:
    """A line as an event or log record; {} for anything else a library may print."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
