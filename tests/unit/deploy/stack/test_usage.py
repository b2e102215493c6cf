"""Processor seconds of a stack's processes: whose they are, and what they are spent on."""

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


class Machine:
    """Its gateway takes 5 ms of a request, 2 ms and 1 us a patch of an image, 0.3 ms of a token."""

    def __init__(self) -> None:
        self.used = {"gateway": 0.0, "client": 0.0}

    def read(self) -> dict[str, float]:
        return dict(self.used)

    def work(self, requests: int = 0, images: int = 0, patches: int = 0, tokens: int = 0) -> None:
        self.used["gateway"] += requests * 5e-3 + images * 2e-3 + patches * 1e-6 + tokens * 3e-4
        self.used["client"] += tokens * 1e-4


def test_what_processes_take_is_found_from_what_they_did() -> None:
    machine = Machine()
    measured = Usage(machine.read)
    for stretch in 2 * STRETCHES:
        with measured.during(**stretch):
            machine.work(**stretch)
    found = measured.costs()
    expected = {"idle": 0.0, "request_s": 5e-3, "image_s": 2e-3, "patch_s": 1e-6, "token_s": 3e-4}
    assert found["gateway"] == pytest.approx(expected, rel=1e-3, abs=1e-9)
    tokens_alone = {**dict.fromkeys(expected, 0.0), "token_s": 1e-4}
    assert found["client"] == pytest.approx(tokens_alone, abs=1e-9)


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
