"""A Ray cluster on the hosts: a head that runs no replicas, and a node on each vision host."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from protos.machine import processes
from tests.chaos.hosts import Host
from tests.chaos.services import Service
from tests.chaos.spaces import ROOT
from tests.e2e.ray_cluster import START as RAY

PORT = 6379
STORE_PORT = 6380
TOKEN = "c4a0" * 16
STARTED = "Ray runtime started"
_RAY = (sys.executable, "-c", RAY)
_START = (*_RAY, "start")  # returns, and leaves the node
STOP = (*_RAY, "stop")
_EVERY_NODE = ("--object-store-memory=100000000", "--include-log-monitor=false")
_HEAD = (
    "--head",
    f"--port={PORT}",
    "--num-cpus=0",
    "--include-dashboard=false",
    "--no-monitor",
)
REPLICA, CONTROLLER, HEAD_STORE = "ray::ServeRepli", "ray::ServeContr", "gcs_server"


def environment(secrets: Path) -> dict[str, str]:
    """What nodes and fronts of a host are told of Ray: a token, and certificates both ways.

    Args:
        secrets: The host's folder of `tandem certificates`.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(secrets / "certificate.pem"),
        "RAY_TLS_SERVER_KEY": str(secrets / "key.pem"),
        "RAY_TLS_CA_CERT": str(secrets / "authority.pem"),
        "RAY_USAGE_STATS_ENABLED": "0",
        # How long nodes, replicas and fronts do without the head; Ray's default is 60.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        "PYTHONPATH": str(ROOT),
    }


def node(host: Host, variables: Mapping[str, str], *, head: Host | None = None) -> Service:
    """The Ray node of a host.

    Args:
        host: Where.
        variables: As `environment` makes them.
        head: The cluster's; None: this one is.
    """
    own = _HEAD if head is None else (f"--address={head.address}:{PORT}", "--num-cpus=2")
    command = [*_START, f"--node-ip-address={host.address}", *_EVERY_NODE, *own]
    return Service(f"node-{host.name}", host, lambda: command, variables, ready=STARTED)


def redis_server() -> str | None:
    """The programme that can keep what a head knows, where this machine has it."""
    return shutil.which("redis-server")


def store(host: Host) -> Service:
    """Redis on a host, for the head to keep in it what it knows."""
    own = ["--bind", host.address, "--port", str(STORE_PORT), "--protected-mode", "no"]
    command = [redis_server() or "redis-server", *own, "--save", "", "--dir", str(host.folder)]
    return Service("store", host, lambda: command, {}, ready="Ready to accept connections")


def kept_in(store: Host) -> dict[str, str]:
    """What a head is told that keeps what it knows in a store."""
    return {"RAY_REDIS_ADDRESS": f"{store.address}:{STORE_PORT}"}


def running(hosts: Sequence[Host], name: str) -> list[int]:
    """Processes on some hosts whose name begins so."""
    return [
        pid
        for host in hosts
        for pid in processes.descendants(host.space.first)
        if processes.name(pid).startswith(name)
    ]
