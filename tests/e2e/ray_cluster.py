"""A Ray cluster on this machine whose nodes have loopback addresses of their own, as hosts have."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from protos.machine import processes
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
# `ray start`, without the processes that nobody asks here and with patience for busy cores: with
# all of them a node takes three times as long, and gives up after 30 s.
START = """
from ray.scripts.scripts import main
from vision_service.replicas.lean_node import lean_node
from vision_service.replicas.ray_runtime import patient

with lean_node(), patient(80.0):
    main()
"""
START_TIMEOUT_S = 90
TOKEN = "5a" * 32
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}


class RayCluster:
    """Running nodes; as a context manager they are ended, with all that is below them.

    Args:
        bundles: What `VISION_BUNDLE` says on each host, by its address; the first is the head.
    """

    def __init__(self, bundles: Mapping[str, Path]) -> None:
        self.address = f"{next(iter(bundles))}:{_free_port()}"
        self._bundles = bundles
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets: short paths
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        head, *others = self._bundles
        port = self.address.rpartition(":")[2]
        try:
            self._start(head, "--head", f"--port={port}", "--include-dashboard=false")
            wait_until(self._all_started, what="the head", timeout_s=START_TIMEOUT_S)
            for host in others:
                self._start(host, f"--address={self.address}")
            wait_until(self._all_started, what="the nodes", timeout_s=START_TIMEOUT_S)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def replicas(self) -> dict[int, str]:
        """Hosts of the encoder replicas, by process."""
        return {
            pid: host
            for host, node in self._nodes.items()
            for pid in processes.descendants(node.pid)
            if processes.name(pid).startswith("ray::ServeRepli")
        }

    def _stop(self) -> None:
        for node in self._nodes.values():
            below = [node.pid, *processes.descendants(node.pid)]
            started = {pid: since for pid in below if (since := processes.start_time(pid))}
            processes.end(started, grace_s=0.0)
            node.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, host: str, *flags: str) -> None:
        command = [sys.executable, "-c", START, "start", "--block", *flags]
        options = [
            f"--node-ip-address={host}",
            f"--temp-dir={self._folder / host.rpartition('.')[2]}",  # sockets of its own
            "--num-cpus=2",
            "--object-store-memory=100000000",
            "--dashboard-agent-listen-port=0",
            "--include-log-monitor=false",
        ]
        environment = {
            **os.environ,
            **ENVIRONMENT,
            "VISION_BUNDLE": str(self._bundles[host]),
            "PYTHONPATH": str(ROOT),
        }
        with (self._folder / f"{host}.log").open("wb") as log:
            self._nodes[host] = subprocess.Popen(
                [*command, *options], env=environment, stdout=log, stderr=log, cwd=self._folder
            )

    def _all_started(self) -> bool:
        logs = {host: (self._folder / f"{host}.log").read_text() for host in self._nodes}
        for host, node in self._nodes.items():
            assert node.poll() is None, logs[host]
        return all("Ray runtime started" in log for log in logs.values())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
