"""What a second vision replica on the same host costs: seconds to ready, and its own memory.

    python -m tests.bench.second_replica [--folder FOLDER] [--form NAME] [--threads N] [--runs N]

Ray and one replica run, as `tandem serve vision` has them. Serve is asked for a second one, and for
one again, several times: seconds are from the asking until the second answers, with Serve's own
loop, Ray's worker process and imports. Its memory is read then, before any image: USS is what only
this process holds, without the process that forks its parsers. The tower has the 2B and 4B
models' shape and random weights; the ceiling is what maps them and imports nothing.

Not measured: a start with cold disks. The last line of standard output is one JSON object.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from deploy.stack.usage import REPLICA
from protos.machine import processes
from tests.bench.compare_towers import FOLDER
from tests.bench.machine import private_bytes, proportional_bytes, warn_unless_quiet
from tests.support import full_size_tower
from vision_service.cluster.application import Application
from vision_service.config import VisionConfig
from vision_service.replicas import reaper
from vision_service.replicas.applications import private_application
from vision_service.replicas.ray_runtime import RayRuntime

MIB = 1024**2
SECONDS_GOAL, MEMORY_GOAL_MIB = 2.0, 300
REST_S = 3.0  # for Ray to start the worker that comes next


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    watching = reaper.start()
    if not (arguments.folder / "vision" / "config.json").is_file():
        sys.stderr.write(f"writing random weights to {arguments.folder}\n")
        full_size_tower.build(arguments.folder)
    others = warn_unless_quiet()
    config = VisionConfig(
        bundle=str(arguments.folder), tower=arguments.form, threads=arguments.threads, replicas=1
    )
    runs = asyncio.run(starts(config, watching, arguments.runs))
    seconds, private, proportional = (statistics.median(one) for one in zip(*runs, strict=True))
    found = {
        "form": arguments.form,
        "runs": arguments.runs,
        "seconds_to_ready": round(seconds, 2),
        "seconds_goal": SECONDS_GOAL,
        "private_mib": round(private / MIB, 1),
        "private_goal_mib": MEMORY_GOAL_MIB,
        "pss_mib": round(proportional / MIB, 1),
        "all_seconds": [round(one[0], 2) for one in runs],
        "other_cores": others,
    }
    sys.stdout.write(
        f"second replica ready in {seconds:.2f} s (goal {SECONDS_GOAL} s) with"
        f" {private / MIB:.0f} MiB of its own (goal {MEMORY_GOAL_MIB}), PSS"
        f" {proportional / MIB:.0f} MiB\n{json.dumps(found)}\n"
    )
    return 0


async def starts(
    config: VisionConfig, watching: reaper.Reaper, count: int
) -> list[tuple[float, float, float]]:
    """Seconds to ready, USS and PSS of each second replica."""
    runtime = RayRuntime(config, watching)
    await runtime.start(reclaim_signals=lambda: None)
    one, two = (_application(config, replicas) for replicas in (1, 2))
    found: list[tuple[float, float, float]] = []
    try:
        await runtime.call(lambda: _have(one))
        with Progress(console=Console(stderr=True)) as progress:
            for _ in progress.track(range(count), description="starts"):
                await asyncio.sleep(REST_S)
                before = replicas()
                began_s = time.perf_counter()
                await runtime.call(lambda: _have(two))
                seconds = time.perf_counter() - began_s
                [second] = replicas() - before
                found.append((seconds, private_bytes(second), proportional_bytes(second)))
                await runtime.call(lambda: _have(one))
    finally:
        await runtime.stop()
    return found


def _application(config: VisionConfig, replicas: int) -> Application:
    """With a version: replicas that run are left as they are."""
    made = private_application(replace(config, replicas=replicas), cores=config.threads or 1)
    return replace(made, version="1")


def _have(application: Application) -> None:
    application.run()
    application.wait()


def replicas() -> set[int]:
    """Process ids of the replicas below this process."""

    return {pid for pid in processes.descendants(os.getpid()) if _is_replica(pid)}


def _is_replica(pid: int) -> bool:
    return processes.name(pid).startswith(REPLICA)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A second vision replica on one host.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--form", choices=("fast", "exact"), default="fast")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
