"""A team trains together and ends together."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.demo_model.team import Member, run_team

PATIENCE_S = 60.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM)

# Started as shells start what runs in the background: with SIGINT ignored.
SLEEPERS = """
import signal, sys
from functools import partial
from pathlib import Path
from tests.demo_model.team import run_team
from tests.unit.demo_model.test_team import sleep

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    run_team(2, folder / "team", partial(sleep, folder))
"""


def sleep(folder: Path, member: Member) -> None:
    (folder / f"member{member.rank}").write_text(str(os.getpid()))
    time.sleep(PATIENCE_S)


def average(folder: Path, member: Member) -> None:
    layer = nn.Linear(2, 1)
    layer.weight.grad = torch.full((1, 2), float(member.rank))  # the bias has none: zero
    member.average_gradients(layer.parameters())
    torch.save([p.grad for p in layer.parameters()], folder / f"member{member.rank}.pt")


def waited_for(condition: "partial[bool]") -> bool:
    until = time.monotonic() + PATIENCE_S / 2
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    return condition()


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return status != "Z"


def are_written(files: list[Path]) -> bool:
    return all(file.exists() and file.read_text() for file in files)


def are_gone(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


@pytest.mark.parametrize("ending", SIGNALS)
def test_no_member_outlives_the_command(tmp_path: Path, ending: signal.Signals) -> None:
    files = [tmp_path / f"member{rank}" for rank in range(2)]
    program = tmp_path / "sleepers.py"
    program.write_text(SLEEPERS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = subprocess.Popen([sys.executable, str(program), str(tmp_path)], env=environment)
    pids: list[int] = []
    try:
        assert waited_for(partial(are_written, files))
        pids = [int(file.read_text()) for file in files]

        command.send_signal(ending)

        assert waited_for(partial(are_gone, pids))
    finally:
        command.kill()
        command.wait()
        for pid in filter(is_running, pids):
            os.kill(pid, signal.SIGKILL)


def test_gradients_are_averaged_and_none_counts_as_zero(tmp_path: Path) -> None:
    run_team(2, tmp_path / "team", partial(average, tmp_path))

    for rank in range(2):
        weight, bias = torch.load(tmp_path / f"member{rank}.pt", weights_only=True)
        assert weight.tolist() == [[0.5, 0.5]]
        assert bias.tolist() == [0.0]
