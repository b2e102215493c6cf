"""What a front of the vision tier costs by itself: requests and gigabytes for each core-second.

    python -m tests.bench.front_ceiling [--rounds N] [--calls N]

The service's real process on a Ray cluster of this machine, in front of one replica whose tower
has its features ready (front/ready_replica.py: four levels of 2048 numbers for a token, as the 2B
model has), with every form on the wire, plain, and with certificates both ways and a token; a
client in another process. Two kinds of images: *small*, 4 tokens in a file of a few hundred bytes,
where a request costs what handling it costs; and *large*, 1024 tokens (32 MiB of float32 features),
where it costs what moving bytes costs.

The variants take turns, and the cheapest round of each counts. Costs are processor time of the
process, all its threads, so that a busy machine adds to them, but not as it adds to times. Each
front is held to one core, all others to the rest. Ceilings, in the same rounds: the same bytes in
the same messages from a server without our code (front/plain.py), and memory copied. The last line
is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from deploy.certificates import issue
from protos.machine import processes
from protos.tandem.v1 import vision_pb2
from protos.wire.features import BYTES
from tests.bench.front.ready_replica import LEVELS, MOST_TOKENS, WIDTH
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.e2e.ray_cluster import ENVIRONMENT, RayCluster
from tests.support.bundles import demo_bundle
from tests.support.prompts import png

HOST, HEAD = "127.0.0.1", "127.0.0.2"
SMALL, LARGE = "small", "large"
SIDES = {SMALL: 64, LARGE: 1024}  # pixels of a side; a token has 32
CALLERS = {SMALL: 4, LARGE: 2}
SMALL_PER_LARGE = 16  # calls of a round
PLAIN = "gRPC alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server and what it is asked for.

    Attributes:
        form: What features travel in; `PLAIN`: no features, and none of our code.
        secure: With certificates both ways, and a token where the server asks for one.
        address: Of its port.
        pid: Of its process.
    """

    form: str
    secure: bool
    address: str
    pid: int


class Cost(NamedTuple):
    """What a round cost, for each call: seconds of processor time, bytes, seconds."""

    front_s: float
    replica_s: float
    received: float
    wall_s: float


class Bench:
    """Everything at work: servers, a replica, a client; `measure` asks one of them."""

    def __init__(self, cluster: RayCluster, client: subprocess.Popen[str], folder: Path) -> None:
        self._cluster, self._client, self._folder = cluster, client, folder
        for kind, side in SIDES.items():
            message = vision_pb2.EncodeRequest(image=png(side, side), request_id=kind)
            message.min_pixels = message.max_pixels = side * side
            (folder / kind).write_bytes(message.SerializeToString())

    def measure(self, target: Target, kind: str, calls: int) -> Cost:
        """What one call of a kind costs, of so many."""
        job = {
            "address": target.address,
            "secrets": str(self._folder / "secrets" / HOST) if target.secure else None,
            "request": str(self._request(target, kind)),
            "calls": calls,
            "callers": CALLERS[kind],
        }
        replicas = self._replicas()
        front_s, replica_s = cpu_s([target.pid]), cpu_s(replicas)
        told = self._asked(job)
        return Cost(
            front_s=(cpu_s([target.pid]) - front_s) / calls,
            replica_s=(cpu_s(replicas) - replica_s) / calls,
            received=told["bytes"] / calls,
            wall_s=told["seconds"] / calls,
        )

    def _request(self, target: Target, kind: str) -> Path:
        if target.form != PLAIN:
            return self._folder / kind
        asked = self._folder / f"plain-{kind}"
        asked.write_text(str(feature_bytes(kind, "float32")))
        return asked

    def _replicas(self) -> list[int]:
        """The replica's process, and those in which it reads files."""
        own = list(self._cluster.replicas())
        return own + [below for pid in own for below in processes.descendants(pid)]

    def _asked(self, job: dict[str, Any]) -> dict[str, float]:
        assert self._client.stdin is not None and self._client.stdout is not None
        self._client.stdin.write(json.dumps(job) + "\n")
        self._client.stdin.flush()
        answer: dict[str, float] = json.loads(self._client.stdout.readline())
        return answer


def feature_bytes(kind: str, form: str) -> int:
    """Of one image's features on the wire, without what is around them."""
    tokens = (SIDES[kind] // 32) ** 2
    assert tokens <= MOST_TOKENS
    return LEVELS * tokens * WIDTH * BYTES[form]


def cpu_s(pids: Sequence[int]) -> float:
    """Processor time of some processes, seconds."""
    every = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(times.user + times.system for times in every))


@contextmanager
def started(command: Sequence[str], cores: Sequence[int]) -> Iterator[subprocess.Popen[str]]:
    """A process held to some cores with all that it starts; ended when it is left."""
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            os.sched_setaffinity(process.pid, cores)
            yield process
        finally:
            process.terminate()


@contextmanager
def at_work() -> Iterator[tuple[Bench, list[Target]]]:
    """The cluster, a front for every form and door, the plain server and the client."""
    cores = sorted(os.sched_getaffinity(0))
    first, others = cores[:1], cores[1:] or cores
    os.sched_setaffinity(0, others)
    os.environ.update(ENVIRONMENT)
    bundle = demo_bundle("fp32")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issue(folder / "secrets", [f"{HOST},localhost"])
        cluster = stack.enter_context(RayCluster({HEAD: bundle}))
        plain = stack.enter_context(
            started(["tests.bench.front.plain", *map(str, files(folder))], first)
        )
        targets = list(_plain_targets(plain))
        for secure in (False, True):
            for form in BYTES:
                command = _front(bundle, cluster, form, folder if secure else None)
                front = stack.enter_context(started(command, first))
                address = f"{HOST}:{_ports(front)['grpc']}"
                targets.append(Target(form=form, secure=secure, address=address, pid=front.pid))
        client = stack.enter_context(started(["tests.bench.front.client"], others))
        yield Bench(cluster, client, folder), targets


def files(folder: Path) -> list[Path]:
    """Certificate, key and authority of this host."""
    names = ("certificate.pem", "key.pem", "authority.pem")
    return [folder / "secrets" / HOST / name for name in names]


def _plain_targets(plain: subprocess.Popen[str]) -> Iterator[Target]:
    assert plain.stdout is not None
    for secure, port in zip((False, True), plain.stdout.readline().split(), strict=True):
        yield Target(form=PLAIN, secure=secure, address=f"{HOST}:{port}", pid=plain.pid)


def _front(bundle: Path, cluster: RayCluster, form: str, folder: Path | None) -> list[str]:
    command = ["tests.bench.front.served", f"--bundle={bundle}", "--port=0"]
    command += [f"--ray-address={cluster.address}", f"--ray-node-ip={HEAD}"]
    command += ["--threads=1", f"--wire-dtype={form}"]
    if folder is not None:
        named = zip(("certificate", "key", "authority"), files(folder), strict=True)
        command += [f"--tls-{name}={path}" for name, path in named]
        command += [f"--token-file={folder / 'secrets' / HOST / 'token'}"]
    return command


def _ports(front: subprocess.Popen[str]) -> dict[str, int]:
    assert front.stdout is not None
    ports: dict[str, int] = json.loads(front.stdout.readline())["ports"]
    return ports


def copied_bytes_per_core_s() -> float:
    """Bytes that one core copies in a second: read once and written once."""
    values = np.ones(feature_bytes(LARGE, "float32"), np.uint8)
    other = np.empty_like(values)
    seconds = []
    for _ in range(10):
        began = time.process_time()
        np.copyto(other, values)
        seconds.append(time.process_time() - began)
    return values.nbytes / min(seconds)


def best_of(rounds: int, calls: int) -> dict[tuple[str, Target], Cost]:
    """The cheapest round of each variant."""
    best: dict[tuple[str, Target], Cost] = {}
    with at_work() as (bench, targets):
        variants = [(kind, target) for kind in SIDES for target in targets if _says(kind, target)]
        for number in range(rounds + 1):
            for kind, target in variants:
                many = calls * (SMALL_PER_LARGE if kind == SMALL else 1)
                cost = bench.measure(target, kind, many)
                if number:  # the first warms up
                    best[kind, target] = min(best.get((kind, target), cost), cost)
    return best


def _says(kind: str, target: Target) -> bool:
    """Whether a variant says something: small images are the same in every form."""
    return kind == LARGE or target.form in ("float32", PLAIN)


def row(kind: str, target: Target, cost: Cost) -> dict[str, Any]:
    """The figures of the table."""
    bytes_per_core_s = cost.received / cost.front_s
    return {
        "image": kind,
        "sent": target.form,
        "door": "mutual TLS, token" if target.secure else "plain",
        "mib": round(cost.received / 2**20, 2),
        "front_ms": round(cost.front_s * 1e3, 2),
        "requests_per_core_s": round(1 / cost.front_s, 1),
        "gb_per_core_s": round(bytes_per_core_s / 1e9, 2),
        "replica_ms": None if target.form == PLAIN else round(cost.replica_s * 1e3, 2),
        "requests_per_s": round(1 / cost.wall_s, 1),
    }


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="What a front costs by itself.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=16, help="of large images in a round")
    arguments = parser.parse_args()
    others, where = warn_unless_quiet(), surroundings()
    best = best_of(arguments.rounds, arguments.calls)
    rows = [row(kind, target, cost) for (kind, target), cost in best.items()]
    for one in rows:
        cells = ["-" if value is None else str(value) for value in one.values()]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
    copied = round(copied_bytes_per_core_s() / 1e9, 1)
    sys.stdout.write(f"memory copied: {copied} GB per core-second\n")
    found = {"rows": rows, "copied_gb_per_core_s": copied, "other_cores": others}
    sys.stdout.write(json.dumps({**found, **where}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
