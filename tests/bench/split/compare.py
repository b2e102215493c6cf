"""Tiers that are split against one process that does both, on the same two cores, for real.

    python -m tests.bench.split.compare [BUNDLE] [--shares 0,0.5] [--seconds N] [--ttft-s S]

Split: the vision tier on the first core and the decoder on the second, one thread each. Whole: one
process on both cores that computes passes of the tower and steps of the decoder by turns, two
threads each. Same services, kernels, wires, gateway and requests; both stand at once and are asked
in turns. Per share of requests with an image: what each completes when it always has eight requests
(its capacity), then at 50, 70 and 90 % of the larger capacity, at random moments, the goodput:
requests a second that meet both targets. An image is 448x448 (196 tokens), text in 96 and out 48
tokens on average. A share takes two minutes or more, most with many images.

Not compared: more cores, where the ratio of replicas to decoders can be chosen, and Ray between
front and replica. The last line of standard output is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from deploy.client import ChatClient
from planner.load import ImageSize, Load
from planner.simulation.requests import arrivals
from tests.bench.machine import warn_unless_quiet
from tests.bench.plan.bundle import plan_bundle
from tests.bench.plan.clients import Clients, Seen

ROOT = Path(__file__).parents[3]
SHARES = "0,0.1,0.25,0.5,1"
BUSY = (0.5, 0.7, 0.9)
AT_ONCE = 8
MAX_CONTEXT = 4096
LOAD = Load(sizes=(ImageSize(width=448, height=448),), tokens_in=96, tokens_out=48, warm_up_s=0.0)
GATEWAY = ["--http-port=0", "--grpc-port=0", "--embedding-cache-mib=0", "--log-level=ERROR",
           "--request-deadline-s=600", "--encode-deadline-s=600", "--tier-wait-s=60"]  # fmt: skip
VISION = ["--port=0", "--threads=1", "--tower=fast", "--log-level=ERROR"]
DECODER = ["--port=0", "--threads=1", "--max-sequences=8", f"--max-context={MAX_CONTEXT}",
           "--speculation=off", "--log-level=ERROR"]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """When a request counts as good, seconds: its first token, and the 99th of its gaps."""

    ttft_s: float
    itl_s: float

    def met(self, seen: Seen) -> bool:
        """Whether an answer came in time."""
        gaps = sorted(seen.gaps) or [0.0]
        return seen.first_s <= self.ttft_s and gaps[int(0.99 * (len(gaps) - 1))] <= self.itl_s


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Split tiers against one process, for real.")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--shares", default=SHARES)
    parser.add_argument("--ttft-s", type=float, default=2.0)
    parser.add_argument("--itl-s", type=float, default=0.1)
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    bundle = arguments.bundle or plan_bundle()
    shares = [float(share) for share in arguments.shares.split(",")]
    targets = Targets(ttft_s=arguments.ttft_s, itl_s=arguments.itl_s)
    with split(bundle) as apart, whole(bundle) as together:
        nodes = {"split": Clients(apart), "whole": Clients(together)}
        for clients in nodes.values():
            saturated(clients, 0.5, 2.0)  # warms up
        rows = [
            row(nodes, share, arguments.seconds, targets)
            for share in track(shares, "shares", console=Console(stderr=True))
        ]
    show(rows)
    print(json.dumps({"rows": rows, "most_other_cores_in_use": others}))
    return 0


def row(
    nodes: dict[str, Clients], share: float, seconds: float, targets: Targets
) -> dict[str, Any]:
    """Capacities and goodputs at one share of requests with an image."""
    capacity = {name: saturated(clients, share, seconds / 2) for name, clients in nodes.items()}
    best = dict.fromkeys(nodes, 0.0)
    for busy in BUSY:
        rate = busy * max(capacity.values())
        load = replace(LOAD, images=rate * share, texts=rate * (1 - share), seconds=seconds)
        asked = arrivals(load, max_context=MAX_CONTEXT)
        for name, clients in nodes.items():
            good = sum(map(targets.met, clients.answers(asked)))
            best[name] = max(best[name], good / seconds)
    return {
        "share": share,
        "ratio": round(best["split"] / best["whole"], 3) if best["whole"] else None,
        "goodput": {name: round(value, 3) for name, value in best.items()},
        "capacity": {name: round(value, 3) for name, value in capacity.items()},
    }


def saturated(clients: Clients, share: float, seconds: float) -> float:
    """Requests a second where some are always waiting."""
    load = replace(LOAD, images=share, texts=1 - share, seconds=400.0)
    waiting = iter(arrivals(load, max_context=MAX_CONTEXT))
    until = time.perf_counter() + seconds
    ended = list[float]()

    def ask() -> None:
        while time.perf_counter() < until:
            clients.answers([replace(next(waiting), moment=0.0)])
            ended.append(time.perf_counter())

    began = time.perf_counter()
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(ended) / (max(ended) - began)


@contextmanager
def split(bundle: Path) -> Iterator[ChatClient]:
    """A gateway before two tiers on a core each."""
    with ExitStack() as stack:
        front = ROOT / "tests" / "support" / "vision_without_ray.py"
        vision = stack.enter_context(
            service([str(front), f"--bundle={bundle}", *VISION], {0}, ("vision",))
        )
        decoder = stack.enter_context(
            service(["-m", "decoder_service", f"--bundle={bundle}", *DECODER], {1}, ("decoder",))
        )
        yield stack.enter_context(gateway(bundle, vision | decoder))


@contextmanager
def whole(bundle: Path) -> Iterator[ChatClient]:
    """A gateway before one process on both cores."""
    node = ["-m", "tests.bench.split.whole_node", str(bundle), "2"]
    with service(node, {0, 1}, ("vision", "decoder")) as ports, gateway(bundle, ports) as client:
        yield client


@contextmanager
def gateway(bundle: Path, ports: dict[str, int]) -> Iterator[ChatClient]:
    """Free to run on both cores, as the clients are."""
    tiers = [f"--{tier}=127.0.0.1:{port}" for tier, port in ports.items()]
    command = ["-m", "gateway", f"--bundle={bundle}", *tiers, *GATEWAY]
    with (
        service(command, {0, 1}, ("gateway",)) as found,
        ChatClient(f"127.0.0.1:{found['gateway']}") as client,
    ):
        if not client.wait_until_serving(timeout_s=60.0):
            raise RuntimeError("the gateway did not become ready")
        yield client


@contextmanager
def service(
    command: Sequence[str], cores: set[int], tiers: Sequence[str]
) -> Iterator[dict[str, int]]:
    """A process on some cores, for the block; gives the gRPC port of each of its tiers."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, cores)  # before it has threads, which take it over
    try:
        assert process.stdout is not None
        ports = dict[str, int]()
        while len(ports) < len(tiers):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{command[1]} ended with {process.wait()}")
            event = json.loads(line)
            ports[event["tier"]] = event["ports"]["grpc"]
        yield ports
    finally:
        process.kill()
        process.wait()


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints a table, ratio first."""
    table = Table("with an image", "split / whole", "goodput split", "whole",
                  "capacity split", "whole")  # fmt: skip
    for one in rows:
        ratio = "-" if one["ratio"] is None else f"{one['ratio']:.2f}"
        table.add_row(f"{one['share']:.0%}", ratio,
                      *(f"{one[kind][name]:.2f}" for kind in ("goodput", "capacity")
                        for name in ("split", "whole")))  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
