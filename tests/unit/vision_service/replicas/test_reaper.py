"""The reaper ends what a killed process leaves behind, and nothing else."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protos.machine import processes
from tests.support.waiting import wait_until

# A service that starts one child in a session of its own, tells the reaper, and then waits.
SERVICE = """
import subprocess, sys, time
from protos.machine import processes
from vision_service.replicas import reaper
watching = reaper.start()
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
watching.tell(reaper.Belongings(started={}, folder=""))
started = {child.pid: processes.start_time(child.pid)}
watching.tell(reaper.Belongings(started=started, folder=sys.argv[1]))
print(child.pid, watching.pid, flush=True)
sys.stdin.readline()
child.kill()
"""


@contextmanager
def service(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    command = [sys.executable, "-c", SERVICE, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        child, watching = map(int, running.stdout.readline().split())
        yield running, child, watching


def test_a_killed_service_leaves_neither_processes_nor_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    with service(folder) as (running, child, watching):
        running.kill()
    wait_until(lambda: processes.start_time(child) is None, what="the child's end")
    wait_until(lambda: processes.start_time(watching) is None, what="the reaper's end")
    assert not folder.exists()


def test_the_reaper_ends_with_a_service_that_ends_by_itself(tmp_path: Path) -> None:
    with service(tmp_path / "none") as (running, _, watching):
        output, _ = running.communicate("end\n", timeout=30)  # the reaper holds no output open
        assert output == ""
    wait_until(lambda: processes.start_time(watching) is None, what="the reaper's end")
    assert running.returncode == 0
