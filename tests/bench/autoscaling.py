"""Replicas and waits under steps and bursts: our policy and router beside Serve's own.

    python -m tests.bench.autoscaling [--replicas N] [--seconds N] [--plot FILE] [--only RUN]

Real replicas on a real Ray, each with a tower that waits as long as the 2B model's takes: images of
256, 1024 and 4096 patches (six, three and one in ten), 0.3, 1.4 and 9.9 seconds. The same arrivals
go to each policy, one after the other:

*Scaling*, 1 to N replicas: a trickle, a burst of thirty images, silence, a step to the load of
three replicas, silence. Ours against request counts as this tier had them before (4 calls a
replica, 5 s up) with Serve's router. Both end replicas after 20 calm seconds, so that a run shows
it.

*Placement*, four replicas that stay, at three quarters of what they can do: where an image is
finished first, against the fewest requests of two replicas at random.

Waits are from call to answer, less the image's own time. The tier starts as many of Ray's workers
beforehand as it may have replicas; arrivals begin when these have imported what a replica needs, so
that the burst finds them ready, on two cores as on a hundred. The replicas of the step are started
after others have ended, in new processes, which take their seconds. The last line of standard
output is one JSON object.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import psutil
from ray import serve

from protos.machine import processes
from protos.media.images import Grid
from tests.bench.figures import percentile
from tests.bench.machine import warn_unless_quiet
from tests.bench.timeline import draw
from tests.bench.waiting_replica import MEASURED, WaitingDeployment
from vision_service import __main__ as service
from vision_service.config import VisionConfig
from vision_service.jobs import EncodeJob, Patches
from vision_service.replicas import applications, reaper, scaling
from vision_service.replicas.encoders import RayEncoders
from vision_service.scaling.cost import Work

SIZES = [Grid(1, 16, 16)] * 6 + [Grid(1, 32, 32)] * 3 + [Grid(1, 64, 64)]
SECONDS = [MEASURED.seconds(Work.of(grid)) for grid in SIZES]
MEAN_S = sum(SECONDS) / len(SECONDS)
TRICKLE, STEP = 0.2, 3.0  # replicas that are busy all the time
BURST = 30  # images
CALM_S = 20.0
SAMPLE_S = 0.25
# Workers that have imported everything take a few hundredths of a core to be there.
IDLE, REST_S, REST_SHARE, READY_TIMEOUT_S = "ray::IDLE", 3.0, 0.2, 120.0
PLACED = 4  # replicas of the runs that do not scale


class Kind(NamedTuple):
    """Whether a run scales, and whether policy and router are ours."""

    scales: bool
    ours: bool


RUNS = {
    "work": Kind(scales=True, ours=True),
    "requests": Kind(scales=True, ours=False),
    "finish-first": Kind(scales=False, ours=True),
    "fewest-requests": Kind(scales=False, ours=False),
}
BEFORE = {"target_ongoing_requests": 4, "upscale_delay_s": 5.0, "downscale_delay_s": CALM_S}


@dataclass(frozen=True, slots=True)
class Arrival:
    """An image and when it comes, seconds from the start."""

    at_s: float
    grid: Grid


@dataclass(slots=True)
class Run:
    """What one policy did with the arrivals; times are seconds from the start."""

    name: str
    ended: list[tuple[float, float, float]] = field(default_factory=list)  # arrival, wait, own
    failed: int = 0
    replicas: list[tuple[float, int, int]] = field(default_factory=list)  # time, asked, running

    def waits(self) -> list[float]:
        """Waits of all images, seconds."""
        return [wait for _, wait, _ in self.ended]

    def replica_seconds(self) -> float:
        """Replicas asked for, over time."""
        pairs = zip(self.replicas, self.replicas[1:], strict=False)
        return sum(asked * (after[0] - at) for (at, asked, _), after in pairs)

    def decided_s(self, since_s: float) -> float | None:
        """When more replicas were asked for than at a time, seconds after it."""
        before = [asked for at, asked, _ in self.replicas if at <= since_s]
        later = [at for at, asked, _ in self.replicas if at > since_s and asked > before[-1]]
        return round(later[0] - since_s, 1) if later else None

    def row(self) -> dict[str, Any]:
        """The figures of the table."""
        waits = self.waits()
        return {
            "run": self.name,
            "images": len(waits),
            "failed": self.failed,
            "wait_p50_s": round(percentile(waits, 0.5), 2),
            "wait_p99_s": round(percentile(waits, 0.99), 2),
            "replica_seconds": round(self.replica_seconds()),
        }


def stream(rng: np.random.Generator, rate: float, begin_s: float, end_s: float) -> list[Arrival]:
    """Images at random moments, `rate` a second on average."""
    count = rng.poisson(rate * (end_s - begin_s))
    moments = sorted(rng.uniform(begin_s, end_s, count))
    return [Arrival(at, SIZES[rng.integers(len(SIZES))]) for at in moments]


def load_of(seconds: float) -> tuple[list[Arrival], float, float]:
    """A trickle, a burst, silence, a step, silence; and when burst and step begin."""
    rng = np.random.default_rng(7)
    burst, step = 0.1 * seconds, 0.55 * seconds
    arrivals = stream(rng, TRICKLE / MEAN_S, 0.0, burst)
    arrivals += [Arrival(burst + 0.02 * n, SIZES[rng.integers(len(SIZES))]) for n in range(BURST)]
    arrivals += stream(rng, STEP / MEAN_S, step, 0.9 * seconds)
    return arrivals, burst, step


def measured(name: str, arguments: argparse.Namespace) -> Run:
    """One policy's run, in a process of its own: Ray leaves threads behind in one that it used."""
    command = [sys.executable, "-m", "tests.bench.autoscaling", f"--run={name}"]
    command += [f"--replicas={arguments.replicas}", f"--seconds={arguments.seconds}"]
    config = VisionConfig(bundle=".", startup_timeout_s=120.0)
    environment = {
        **os.environ,
        **service._ray_environment(config, {}),
        # Beforehand, Ray starts no more of them than at once: as many as there are cores.
        "RAY_worker_maximum_startup_concurrency": str(arguments.replicas + 1),
    }
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def main(arguments: argparse.Namespace) -> int:
    """Runs all and prints; returns the exit code."""
    result: dict[str, Any] = {"other_cores": warn_unless_quiet(), "mean_image_s": round(MEAN_S, 2)}
    runs = {name: measured(name, arguments) for name in arguments.only or RUNS}
    arrivals, burst, step = load_of(arguments.seconds)
    for name, run in runs.items():
        row = run.row()
        if RUNS[name].scales:
            row |= {
                "burst_decided_s": run.decided_s(burst),
                "step_decided_s": run.decided_s(step),
            }
        sys.stdout.write(f"{row}\n")
        result[name] = row
    if arguments.plot:
        scaling_runs = [run for name, run in runs.items() if RUNS[name].scales]
        draw(arguments.plot, scaling_runs, arrivals, arguments.seconds)
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


async def one(arguments: argparse.Namespace) -> int:
    """One run; prints it as JSON."""
    kind, run = RUNS[arguments.run], Run(arguments.run)
    if kind.scales:
        arrivals, _, _ = load_of(arguments.seconds)
    else:
        rng = np.random.default_rng(11)
        arrivals = stream(rng, 0.75 * PLACED / MEAN_S, 0.0, arguments.seconds / 2)
    await with_encoders(
        arguments.replicas if kind.scales else None,
        kind,
        lambda encoders: follow(encoders, run, arrivals),
    )
    sys.stdout.write(json.dumps(asdict(run)) + "\n")
    return 0


async def with_encoders(most: int | None, kind: "Kind", use: Callable[[RayEncoders], Any]) -> None:
    """Starts the tier as the service does, with waiting replicas and a changed deployment."""
    replicas = PLACED if most is None else 1
    config = VisionConfig(bundle=".", threads=1, replicas=replicas, max_replicas=most)
    options = scaling.deployment_options(config)
    if kind.scales:
        ours = options["autoscaling_config"]
        ours["policy"]["policy_kwargs"]["calm_s"] = CALM_S
        if not kind.ours:
            bounds = {name: ours[name] for name in ("min_replicas", "max_replicas")}
            options["autoscaling_config"] = bounds | BEFORE
    if not kind.ours:
        del options["request_router_config"]
    with (
        patch.object(applications, "deployment_options", lambda _: options),
        patch.object(applications, "EncoderDeployment", WaitingDeployment),
    ):
        encoders = RayEncoders(config, WATCHING)
        try:
            await encoders.start(reclaim_signals=lambda: None)
            await _workers_ready(config.most_replicas - replicas)
            await use(encoders)
        finally:
            await encoders.stop()


async def _workers_ready(count: int) -> None:
    """Returns when so many of Ray's workers are idle and have imported what a replica needs."""
    deadline_s, before_s = time.perf_counter() + READY_TIMEOUT_S, 0.0
    while time.perf_counter() < deadline_s:
        await asyncio.sleep(REST_S)
        idle = _idle_workers_s()
        if len(idle) >= count and sum(idle) - before_s < REST_SHARE * REST_S:
            return
        before_s = sum(idle)
    sys.stderr.write("Ray's workers were not ready in time; the run begins all the same\n")


def _idle_workers_s() -> list[float]:
    """Processor time of each of Ray's idle workers, seconds."""
    below = psutil.Process().children(recursive=True)
    times = [one.cpu_times() for one in below if processes.name(one.pid).startswith(IDLE)]
    return [float(one.user + one.system) for one in times]


async def follow(encoders: RayEncoders, run: Run, arrivals: Sequence[Arrival]) -> None:
    """Sends the images as they come, and looks at the replicas until all is done and quiet."""
    began_s = time.perf_counter()
    sampler = asyncio.create_task(_sample(run, began_s))
    calls = []
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, began_s + arrival.at_s - time.perf_counter()))
        calls.append(asyncio.create_task(_call(encoders, run, arrival, began_s)))
    await asyncio.gather(*calls)
    await asyncio.sleep(CALM_S + 10.0)
    sampler.cancel()


async def _call(encoders: RayEncoders, run: Run, arrival: Arrival, began_s: float) -> None:
    pixels = np.zeros((arrival.grid.patches, 1), np.float32)
    own_s = MEASURED.seconds(Work.of(arrival.grid))
    at_s = time.perf_counter()
    try:
        await encoders.encode(EncodeJob(source=Patches(pixels, arrival.grid)))
    except Exception as error:  # whatever fails counts as failed, whichever error it is
        sys.stderr.write(f"{error!r}\n")
        run.failed += 1
        return
    run.ended.append((at_s - began_s, max(0.0, time.perf_counter() - at_s - own_s), own_s))


async def _sample(run: Run, began_s: float) -> None:
    while True:
        application = await asyncio.to_thread(lambda: serve.status().applications["vision"])
        states = application.deployments["encoder"].replica_states
        running = states.get("RUNNING", 0)
        asked = running + states.get("STARTING", 0)
        run.replicas.append((time.perf_counter() - began_s, asked, running))
        await asyncio.sleep(SAMPLE_S)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Autoscaling and placement, ours and Serve's.")
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", action="append", choices=list(RUNS))
    parser.add_argument("--run", choices=list(RUNS), help="one run alone, as JSON")
    chosen = parser.parse_args()
    if chosen.run:
        WATCHING = reaper.start()
        sys.exit(asyncio.run(one(chosen)))
    sys.exit(main(chosen))
