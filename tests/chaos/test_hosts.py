"""The hosts themselves: networks of their own, cables that fail, and nothing that stays behind."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.machine import processes
from tests.chaos.hosts import Host, Network
from tests.chaos.spaces import ROOT
from tests.support.waiting import wait_until

PORT = 7000
ECHO = f"""
import socket
server = socket.create_server(("", {PORT}))
print(flush=True)
while True:
    peer, _ = server.accept()
    while piece := peer.recv(1 << 16):
        peer.sendall(piece)
"""
# Sends so many bytes and waits until they are back; prints the seconds it took.
ASK = f"""
import socket, sys, time
began_s = time.monotonic()
with socket.create_connection((sys.argv[1], {PORT}), timeout=float(sys.argv[3])) as peer:
    left = int(sys.argv[2])
    while left > 0:
        peer.sendall(bytes(min(left, 1 << 14)))
        left -= (got := len(peer.recv(1 << 16)))
        if not got:
            sys.exit("closed")
print(time.monotonic() - began_s)
"""
DELAY_S = 0.1
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def pair(network_folder: Path) -> Iterator[tuple[Host, Host]]:
    """One that answers and one that asks."""
    with Network(network_folder) as network:
        one, other = network.host("one"), network.host("other")
        echo = one.space.popen([sys.executable, "-c", ECHO], None)
        assert echo.stdout is not None
        echo.stdout.readline()
        yield one, other


def asked(
    pair: tuple[Host, Host], *, size: int = 1, patience_s: float = PATIENCE_S
) -> float | None:
    """Seconds until so many bytes came back; None where they did not in time."""
    one, other = pair
    command = [sys.executable, "-c", ASK, one.address, str(size), str(patience_s)]
    output, _ = other.space.popen(command, None).communicate()
    return float(output) if output else None


def test_nothing_crosses_a_link_that_is_down_and_it_comes_back(pair: tuple[Host, Host]) -> None:
    with pair[0].cable.cut():
        assert asked(pair, patience_s=0.5) is None
    assert asked(pair) is not None


def test_a_late_cable_delays_both_directions(pair: tuple[Host, Host]) -> None:
    with pair[0].cable.bad(delay_s=DELAY_S):
        seconds = asked(pair)
    # One way and back for the connection, and once more for the byte.
    assert seconds is not None and seconds >= 4 * DELAY_S


def test_what_a_bad_cable_loses_is_sent_again(pair: tuple[Host, Host]) -> None:
    with pair[0].cable.bad(loss=0.1):
        assert asked(pair, size=1 << 18) is not None
    with pair[0].cable.bad(loss=1.0):
        assert asked(pair, patience_s=0.5) is None


def test_a_host_dies_with_all_its_processes_and_boots_empty(
    hosts_can_be_made: None, tmp_path: Path
) -> None:
    with Network(tmp_path) as network:
        host = network.host("mortal")
        sleeper = host.space.popen(["sleep", "infinity"], None)
        inside = processes.descendants(host.space.first)
        host.crash()
        assert sleeper.wait(PATIENCE_S) != 0
        assert all(processes.start_time(pid) is None for pid in inside)
        host.boot()
        assert host.space.popen(["true"], None).wait(PATIENCE_S) == 0


OWNER = """
import sys
from pathlib import Path
from tests.chaos.hosts import Network
with Network(Path(sys.argv[1])) as network:
    host = network.host("orphan")
    host.space.popen(["sleep", "infinity"], None)
    print(host.space.first, flush=True)
    sys.stdin.read()
"""


def test_nothing_outlives_whoever_made_the_hosts(hosts_can_be_made: None, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        first = int(owner.stdout.readline())
        below = processes.descendants(owner.pid)
        owner.send_signal(signal.SIGKILL)
    assert first in below
    wait_until(
        lambda: all(processes.start_time(pid) is None for pid in below),
        what="every process of the hosts to end",
        timeout_s=PATIENCE_S,
    )
