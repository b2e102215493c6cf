"""Where the time of one image question goes at full size: the regime of a single user.

    python tests/bench/serve_full_size.py BUNDLE [--threads N] [--runs N]

One 1024x768 image no cache has seen and one question, greedily, 64 tokens past every
end-of-sequence token, one request at a time, all three services on this machine: time to first
token with its parts, decoding speed, memory and start-up of each service. Weights may be random:
neither arithmetic nor memory traffic depends on their values. Ceilings: decoding cannot be faster
than the machine reads the decoder's weights (printed as `weight read ceiling`, from the graph's
size and a bandwidth measured before the services start); there is no such simple bound for the
tower and for prefill, which are bound by arithmetic.

Not measured: several users at once, images of other sizes, quality. Run it on a quiet machine;
the last line is one JSON object. RESULTS.md keeps the numbers.
"""

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from deploy.commands import bench
from deploy.commands.serve import tier_flags
from deploy.stack.local import TIERS
from protos.bundle.manifest import Bundle

LIBRARIES = ("onnxruntime", "torch", "transformers", "ray", "grpcio", "numpy")
READ_BYTES = 1024**3  # well beyond any cache
READ_RUNS = 5


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="One image question at full size.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    console = Console(width=140)
    threads = arguments.threads or len(os.sched_getaffinity(0))
    bandwidth = read_bandwidth(threads)
    load = bench.Load(runs=arguments.runs)
    flags = tier_flags([], threads=arguments.threads)
    report = bench.run(console, arguments.bundle, load, flags=flags)
    bench.show(console, report)
    ceiling = bandwidth / decoder_bytes(arguments.bundle)
    console.print(
        f"memory read {bandwidth / 1e9:.1f} GB/s by {threads} threads; weight read ceiling"
        f" {ceiling:.1f} tok/s; reached {report.tokens_per_second:.1f}"
    )
    found = {
        "bundle": Bundle.open(arguments.bundle).manifest.model_id,
        "ceiling_tokens_per_second": round(ceiling, 2),
        "bandwidth_gb_per_s": round(bandwidth / 1e9, 2),
        **surroundings(),
        **dataclasses.asdict(report),
    }
    console.print(results_row(found), soft_wrap=True, highlight=False, markup=False)
    console.print(json.dumps(found, sort_keys=True), soft_wrap=True, highlight=False, markup=False)
    return 0


def results_row(found: Mapping[str, Any]) -> str:
    """The run as a row of RESULTS.md."""
    seconds = [f"{found['stages_ms'][stage] / 1000:.2f} s" for stage in bench.STAGES[:6]]
    startup = [f"{found['startup_s'][tier]:.1f}" for tier in TIERS]
    memory = [f"{found['memory_after'][tier]['pss_mib']:,.0f}" for tier in TIERS]
    cells = [
        found["date"],
        found["commit"],
        f"{found['cores']} cores, {found['cpu']}",
        found["bundle"],
        *seconds,
        f"{found['tokens_per_second']:.1f} tok/s",
        f"{found['ceiling_tokens_per_second']:.1f} tok/s",
        f"{' / '.join(startup)} s",
        f"{' / '.join(memory)} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def read_bandwidth(threads: int) -> float:
    """Bytes per second with which `threads` threads sum large arrays, the best of several runs."""
    arrays = [np.ones(READ_BYTES // 8 // threads, dtype=np.int64) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:  # NumPy lets go of the interpreter while it sums
        for _ in range(READ_RUNS):
            started = time.perf_counter()
            list(pool.map(np.sum, arrays))
            best = min(best, time.perf_counter() - started)
    return READ_BYTES / best


def decoder_bytes(path: Path) -> int:
    """Bytes of weights read for every token: the graph's, not the embedding table's."""
    bundle = Bundle.open(path)
    table = bundle.manifest.embedding_table.file
    files = bundle.manifest.files.items()
    return sum(entry.size for name, entry in files if name.startswith("decoder/") and name != table)


def surroundings() -> dict[str, object]:
    """Date, commit, hardware and versions of a RESULTS.md row."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "commit": commit.stdout.strip(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
    }


def cpu_name() -> str:
    """The processor's name as the kernel gives it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
