"""What a process holds, by its role, read from /proc."""

import os
import subprocess
import sys

from tests.soak.census import census

HOLDS = """
import os, sys, threading
kept = bytearray(os.urandom(1 << 20)) * 32
files = [open(os.devnull) for _ in range(7)]
threading.Thread(target=sys.stdin.read, daemon=True).start()
print(len(os.listdir("/proc/self/fd")) - 1, flush=True)
threading.Event().wait()
"""


def test_a_process_is_counted_with_what_it_holds() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        descriptors = int(process.stdout.readline())
        found = census({"gateway": process.pid})["gateway"]
        below = census({"front": os.getpid(), "decoder": process.pid})
        process.kill()
    assert (found.processes, found.threads, found.children) == (1, 2, 0)
    assert found.descriptors == descriptors
    assert found.anonymous > 32 << 20
    assert found.private >= found.anonymous - (1 << 20)
    assert found.shared == 0
    assert below["decoder"].processes == 1
    assert below["front"].children >= 1


def test_a_process_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pid = process.pid
    assert census({"gateway": pid}) == {}
