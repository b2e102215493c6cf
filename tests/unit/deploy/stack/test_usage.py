"""Processor seconds of a stack's processes: whose they are, and what they are spent on."""

import itertools
import os
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.stack import usage
from deploy.stack.usage import Usage, processor_seconds
from protos.machine.processes import descendants, name
from tests.support.waiting import wait_until

STRETCHES = [
    {},
    {"requests": 4, "tokens": 8},
    {"requests": 4, "tokens": 256},
    {"requests": 1, "tokens": 2, "images": 1, "patches": 256},
    {"requests": 1, "tokens": 2, "images": 1, "patches": 3072},
]
SECONDS = (0.5, 1.0, 2.0, 0.75, 3.0, 0.25, 1.5)  # of stretches, again and again


class Machine:
    """Its gateway takes 5 ms of a request, 2 ms and 1 us a patch of an image, 0.3 ms of a token.

    And 3 % of a core always. Its client takes 0.1 ms of a token, and nothing else.
    """

    def __init__(self) -> None:
        self.used = {"gateway": 0.0, "client": 0.0}
        self.clock_s = 0.0
        self._seconds = itertools.cycle(SECONDS)

    def read(self) -> dict[str, float]:
        return dict(self.used)

    def work(self, requests: int = 0, images: int = 0, patches: int = 0, tokens: int = 0) -> None:
        self.used["gateway"] += requests * 5e-3 + images * 2e-3 + patches * 1e-6 + tokens * 3e-4
        self.used["client"] += tokens * 1e-4
        seconds = next(self._seconds)
        self.clock_s += seconds
        self.used["gateway"] += seconds * 0.03


def test_what_processes_take_is_found_from_what_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    monkeypatch.setattr(usage, "time", SimpleNamespace(perf_counter=lambda: machine.clock_s))
    measured = Usage(machine.read)
    for stretch in 2 * STRETCHES:
        with measured.during(**stretch):
            machine.work(**stretch)
    found = measured.costs()
    expected = {"idle": 0.03, "request_s": 5e-3, "image_s": 2e-3, "patch_s": 1e-6, "token_s": 3e-4}
    assert found["gateway"] == pytest.approx(expected)
    assert found["client"] == pytest.approx({**dict.fromkeys(expected, 0.0), "token_s": 1e-4})


def test_nothing_that_a_process_takes_is_negative() -> None:
    used = 0.0
    measured = Usage(lambda: {"client": used})
    for stretch in 2 * STRETCHES:
        with measured.during(**stretch):
            used += 1e-3 * stretch.get("requests", 0) - 2e-4 * stretch.get("images", 0)
    (found,) = measured.costs().values()
    assert min(found.values()) == 0.0
    assert found["request_s"] == pytest.approx(1e-3, rel=0.1)


def test_replicas_are_no_part_of_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    monkeypatch.setattr(usage, "REPLICA", "sleep")
    monkeypatch.setattr(usage, "processor_s", lambda pid: 1.0)
    with subprocess.Popen([sys.executable, "-c", tree]) as front:
        wait_until(lambda: descendants(front.pid) != [], what="the replica")
        (replica,) = descendants(front.pid)
        wait_until(lambda: name(replica) == "sleep", what="its name")
        stack: Any = SimpleNamespace(pid=lambda tier: front.pid)
        try:
            assert processor_seconds(stack) == {"front": 1.0, "gateway": 2.0, "client": 1.0}
        finally:
            os.kill(replica, signal.SIGKILL)
