"""What the client got, as it comes: read from its programme, kept, and waited for."""

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tests.chaos.hosts import Host
from tests.chaos.questions import Question

END_TIMEOUT_S = 330.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One request and what came of it; times in seconds of the monotonic clock."""

    kind: str
    name: str
    gateway: str
    began_s: float
    ended_s: float
    text: str = ""
    finish: str | None = None
    pause_s: float = 0.0  # the longest between two events of a stream
    error: str | None = None
    # How it was about the connection: "refused" before anything was sent, "lost" later.
    connection: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it ended as an answer ends."""
        return self.error is None and self.finish in ("stop", "length")

    @property
    def is_refused(self) -> bool:
        """Whether nobody was there; it was asked of another gateway, as a balancer does."""
        return self.connection == "refused"

    @property
    def is_lost(self) -> bool:
        """Whether its gateway went away under it."""
        return self.connection == "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a gateway said of its tiers at a time: addresses by tier and state; empty is silence."""

    gateway: str
    at_s: float
    tiers: Mapping[str, Mapping[str, int]]

    def serving(self, tier: str) -> int:
        """Addresses that get calls like any other."""
        return self.tiers.get(tier, {}).get("serving", 0)


class LoadFailed(Exception):
    """The client's programme ended by itself."""


class Load:
    """The client at work; use as a context manager.

    Args:
        client: Its host.
        gateways: URLs that end in /v1.
        authority: PEM file of who signed their certificates.
        key: Of the gateways.
        questions: What is asked, each again and again.
        at_once: Requests of each kind at the same time.

    Attributes:
        answers: So far; only grows.
        looks: Likewise.
    """

    def __init__(
        self,
        client: Host,
        *,
        gateways: Sequence[str],
        authority: Path,
        key: str,
        questions: Sequence[Question],
        at_once: Mapping[str, int],
    ) -> None:
        job = {"gateways": gateways, "key": key, "at_once": at_once, "authority": str(authority)}
        asked = [asdict(question) for question in questions]
        self._job = client.folder / "job.json"
        self._job.write_text(json.dumps({**job, "questions": asked}))
        self._log = client.folder / "load.log"
        self._client = client
        self._changed = threading.Condition()
        self.answers: list[Answer] = []
        self.looks: list[Look] = []
        self._ended = False

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.chaos.load", str(self._job)]
        with self._log.open("wb") as log:
            self._process = self._client.space.popen(command, log)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        # What runs is waited for, but not when the test has failed already.
        self._reader.join(END_TIMEOUT_S if kind is None else 1.0)

    def wait_for(self, condition: Callable[[], object], *, what: str, timeout_s: float) -> None:
        """Returns when a condition is true that answers or looks make true.

        Raises:
            TimeoutError: it was not, in time.
            LoadFailed: nothing will come any more.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or condition(), timeout_s):
                raise TimeoutError(f"waited {timeout_s:.0f} s for {what}; {self.looks[-2:]}")
            if self._ended:
                raise LoadFailed(self._log.read_text()[-2000:])

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            with self._changed:
                if "tiers" in told:
                    self.looks.append(Look(**told))
                else:
                    self.answers.append(Answer(**told))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
