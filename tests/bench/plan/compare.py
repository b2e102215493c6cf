"""The simulator behind `tandem plan` against the real services: the same requests, side by side.

    python -m tests.bench.plan.compare [BUNDLE] [--slices N] [--busy 0.4,0.6] [--costs FILE]

A stack of one encoder replica and one decoder, one thread each, on two cores. The decoder has the
second to itself. All else is on the first: the replica, the vision tier's front and its Ray, the
gateway, and the clients, which are this process. The simulator is told so, and how much of a
processor each takes: costs are measured first, as `tandem bench --costs` does, and how much longer
a step takes while the tower computes on the other core.

Then slices: for 20 s requests come at random moments, each at its own whatever became of the
others, at rates at which the busier tier works the given shares of its time. Before and after each
slice a few questions say how fast the machine is (speed.py), which the simulator multiplies what
was measured by; then it gets the very same requests. TTFT is from the moment a request was due to
its first token at the client, and the time between tokens is the client's too. All slices of a
share are one sample; "off" is how far the simulator's percentile is from the real one, and beside
it are the 5th and 95th percentiles of what other draws of as many of these slices would have said.
Goal: p50 and p99 within 20 %. The defaults take about 16 minutes; beside other work the figures
are worth nothing.

Not compared: several replicas or decoders on one host, and speculation, which is off. The last
line of standard output is one JSON object.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from deploy.client import ChatClient
from deploy.commands.bench import PATIENCE
from deploy.commands.running import own_stack, stop_signals
from deploy.commands.serve import tier_flags
from deploy.costs import measurement
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.requests import Arrival, arrivals
from planner.simulation.run import Plan, Simulation, simulate
from protos.machine.processes import descendants
from tests.bench.machine import warn_unless_quiet
from tests.bench.plan.beside import step_beside_pass
from tests.bench.plan.bundle import plan_bundle
from tests.bench.plan.clients import Clients
from tests.bench.plan.sample import FIGURES, Sample
from tests.bench.plan.speed import Speed, Speedometer

GOAL = 0.2
FLAGS = ["vision.threads=1", "vision.tower=fast", "decoder.threads=1", "decoder.max-sequences=8",
         "decoder.max-context=4096", "decoder.speculation=off"]  # fmt: skip
CORES = {"vision": 0, "decoder": 1, "gateway": 0}
SHARED = [["replica", "front", "gateway", "client"], ["decoder"]]  # the same for the simulator
SLICE_S = 20.0
LOAD = Load(
    images=0.5,
    texts=0.5,
    sizes=(ImageSize(width=256, height=256), ImageSize(width=448, height=448)),
    tokens_in=96,
    tokens_out=48,
    warm_up_s=0.0,
    seconds=SLICE_S,
)
ONE_OF_EACH = Plan(replicas=1, decoders=1)
# Of the load whose rate is sought: long, for chance to even out.
SOUGHT_S = 400.0
HALVINGS = 12
DRAWS = 400  # of slices, for how far off their sample could have been


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice: what was seen, and what was simulated of it."""

    speed: Speed
    rate: float
    real: Sample
    simulated: Sample
    replica_use: float
    decoder_use: float
    first_core_use: float
    late_p99_s: float


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="The simulator against real runs.")
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--busy", default="0.4,0.6")
    parser.add_argument("--costs", type=Path, help="where to keep the measured costs")
    arguments = parser.parse_args()
    if len(os.sched_getaffinity(0)) < len(SHARED):
        sys.stderr.write("one core only: the tiers would share it\n")
        return 1
    others = warn_unless_quiet()
    console = Console(stderr=True)
    flags = tier_flags(FLAGS, threads=None)
    patient = {tier: [*given, *flags.get(tier, ())] for tier, given in PATIENCE.items()}
    settings = StackSettings(
        bundle=arguments.bundle or plan_bundle(), ports=ANY_FREE, flags=patient
    )
    with stop_signals(), own_stack(console, settings, quiet=True) as (stack, client):
        pin(stack)
        found = {**measurement.measure(stack, client, patient, told=console.print), "cores": SHARED,
                 "step_beside_pass": step_beside_pass(stack, client)}  # fmt: skip
        if arguments.costs is not None:
            arguments.costs.write_text(json.dumps(found, indent=1))
        shares = [float(share) for share in arguments.busy.split(",")]
        runs = Runs(client, Costs.of(found), shares)
        for number in track(range(arguments.slices), "slices", console=console):
            runs.slices(seed=number)
        astray = strays(stack)
    rows = [row(share, some) for share, some in runs.made.items()]
    show(rows)
    if astray:
        print(f"{astray} threads were not on their core")
    print(json.dumps({"rows": rows, "slices": _said(runs.made), "processors": found["processors"],
                      "step_beside_pass": found["step_beside_pass"],
                      "threads_astray": astray, "most_other_cores_in_use": others},
                     sort_keys=True))  # fmt: skip
    return 0


def pin(stack: LocalStack) -> None:
    """Puts each tier on its core, and this process, which asks, on the gateway's."""
    for pid, core in _places(stack).items():
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


def strays(stack: LocalStack) -> int:
    """Threads that are not on their core: none, for new ones begin where their parents are."""
    return sum(
        os.sched_getaffinity(int(task.name)) != {core}
        for pid, core in _places(stack).items()
        for task in Path(f"/proc/{pid}/task").iterdir()
    )


def _places(stack: LocalStack) -> dict[int, int]:
    """The core of every process."""
    found = {os.getpid(): CORES["gateway"]}
    for tier, core in CORES.items():
        found |= dict.fromkeys((stack.pid(tier), *descendants(stack.pid(tier))), core)
    return found


# -- Slices ----------------------------------------------------------------------------------


class Runs:
    """Slices of each share, in turns."""

    def __init__(self, client: ChatClient, costs: Costs, shares: Sequence[float]) -> None:
        self._costs = costs
        self._clients = Clients(client)
        self._speedometer = Speedometer(client, costs)
        self._rates = {share: rate_of(costs, share) for share in shares}
        self._speed = self._speedometer.now()
        self.made: dict[float, list[Slice]] = {share: [] for share in shares}

    def slices(self, seed: int) -> None:
        """One of each."""
        for share, made in self.made.items():
            made.append(self._slice(share, seed))

    def _slice(self, share: float, seed: int) -> Slice:
        before = self._speed
        load = self._load(share, before, seed)
        asked = arrivals(load, max_context=self._costs.decoder.max_context)
        seen = self._clients.answers(asked)
        self._speed = self._speedometer.now()
        speed = Speed.between(before, self._speed)
        costs = speed.scaled(self._costs)
        simulation = Simulation(costs, load, ONE_OF_EACH)
        outcome = simulation.run()
        return Slice(
            speed=speed,
            rate=load.rate,
            real=Sample.seen(seen, SLICE_S),
            simulated=Sample.of(simulation),
            replica_use=outcome.replica_use,
            decoder_use=outcome.decoder_use,
            first_core_use=outcome.replica_use + _around(costs, asked),
            late_p99_s=float(np.quantile([one.late_s for one in seen], 0.99)),
        )

    def _load(self, share: float, speed: Speed, seed: int) -> Load:
        """At the speed that the machine has when it begins."""
        slower = _seconds_of_one(speed.scaled(self._costs)) / _seconds_of_one(self._costs)
        return load_of(self._rates[share] / slower, seed)


def load_of(rate: float, seed: int, seconds: float = SLICE_S) -> Load:
    """So many requests a second, half of them about an image."""
    return replace(LOAD, images=rate / 2, texts=rate / 2, seconds=seconds, seed=seed)


def rate_of(costs: Costs, busy: float) -> float:
    """Requests a second at which the busier tier is simulated to work that share of its time."""
    low, high = 0.0, 2 * busy / _seconds_of_one(costs)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        found = simulate(costs, load_of(middle, 0, SOUGHT_S), ONE_OF_EACH)
        if max(found.replica_use, found.decoder_use) < busy:
            low = middle
        else:
            high = middle
    return high


def _seconds_of_one(costs: Costs) -> float:
    """What the busier tier spends on a request of the load at least: many decode together."""
    patches = [size.patches for size in LOAD.sizes]
    encode = sum(costs.encode.seconds(one) for one in patches) / len(patches) / 2
    tokens = LOAD.tokens_in + sum(patches) / len(patches) / 8
    some = min(4, costs.decoder.slots)
    answer = LOAD.tokens_out * costs.steps.decode_s(some) / some
    return max(encode, tokens * costs.steps.prompt.linear_s + answer)


def _around(costs: Costs, asked: Sequence[Arrival]) -> float:
    """Share of the first core that is not passes': processes around the models, and files."""
    of = costs.processors.values()
    took = sum(
        one.seconds(patches=arrival.patches, tokens=arrival.output_tokens)
        for one in of
        for arrival in asked
    )
    took += sum(costs.preprocess.seconds(one.patches) for one in asked if one.patches)
    return took / SLICE_S + sum(one.idle for one in of)


# -- Figures ---------------------------------------------------------------------------------


def row(share: float, some: Sequence[Slice]) -> dict[str, Any]:
    """All slices of one share: how far the simulator is off, and could have been."""
    made: dict[str, Any] = {
        "busy": share,
        "requests": sum(len(one.real.firsts) for one in some),
        "first_core_use": fmean(one.first_core_use for one in some),
        "decoder_use": fmean(one.decoder_use for one in some),
    }
    draw = np.random.default_rng(0)
    draws = [[some[at] for at in draw.integers(0, len(some), len(some))] for _ in range(DRAWS)]
    for name in FIGURES:
        real, simulated = _both(some, name)
        offs = [drawn / seen - 1 for seen, drawn in (_both(drawn, name) for drawn in draws)]
        made[name] = {"real": real, "simulated": simulated, "off": simulated / real - 1,
                      "least": float(np.quantile(offs, 0.05)),
                      "most": float(np.quantile(offs, 0.95))}  # fmt: skip
    return made


def _both(some: Sequence[Slice], name: str) -> tuple[float, float]:
    """A figure of all, real and simulated."""
    real = Sample.joined([one.real for one in some])
    return real.figure(name), Sample.joined([one.simulated for one in some]).figure(name)


def _said(made: Mapping[float, Sequence[Slice]]) -> list[dict[str, Any]]:
    """Each slice in few figures."""
    return [
        {"busy": share, "rate": round(one.rate, 3), "requests": len(one.real.firsts),
         "decoder_use": round(one.decoder_use, 3), "replica_use": round(one.replica_use, 3),
         "late_p99_s": round(one.late_p99_s, 4),
         "speed": {name: round(value, 3) for name, value in asdict(one.speed).items()},
         "real": {name: round(one.real.figure(name), 5) for name in FIGURES},
         "simulated": {name: round(one.simulated.figure(name), 5) for name in FIGURES}}
        for share, some in made.items() for one in some
    ]  # fmt: skip


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints both beside each other, with how far the simulator is off."""
    table = Table("busy", "figure", "of", "real", "simulated", "off", "5 %", "95 %")
    for one in rows:
        for name in FIGURES:
            figure = one[name]
            mark = "" if abs(figure["off"]) <= GOAL else " !"
            of = f"{one['requests']} requests" if name.startswith("ttft") else "their tokens"
            table.add_row(f"{one['busy']:.0%}", name, of,
                          f"{figure['real'] * 1e3:.1f} ms", f"{figure['simulated'] * 1e3:.1f} ms",
                          f"{figure['off']:+.0%}{mark}",
                          f"{figure['least']:+.0%}", f"{figure['most']:+.0%}")  # fmt: skip
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
