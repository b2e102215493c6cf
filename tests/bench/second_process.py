"""What a second decoder process on the same host costs: seconds to ready, and its own memory.

    python -m tests.bench.second_process BUNDLE [--threads N] [--runs N] [--flag=--NAME=VALUE ...]

One decoder serves the bundle; then another one is started beside it and stopped again, several
times. Its memory is read when it says that it serves, before any request, so that no key or
value has been written: USS is what only this process holds (what starting it takes from the
machine), PSS counts shared pages by their share. The ceiling is a process that maps every weight.

Not measured: a start with cold disks. The last line of standard output is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tests.bench.machine import private_bytes, proportional_bytes, warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.support.decoder_process import DecoderProcess

MIB = 1024**2
SECONDS_GOAL, MEMORY_GOAL_MIB = 1.5, 300


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="A second decoder process on one host.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[])
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    flags = [f"--threads={arguments.threads}", *arguments.flag]
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        with DecoderProcess(arguments.bundle, logs / "first.log", flags) as first:
            alone = private_bytes(first.process.pid)
            progress = Console(stderr=True)
            runs = [
                _start(arguments.bundle, logs / "second.log", flags)
                for _ in track(range(arguments.runs), "starts", console=progress)
            ]
    columns = zip(*runs, strict=True)
    seconds, private, proportional = (statistics.median(column) for column in columns)
    found: dict[str, object] = {
        "seconds_to_ready": round(seconds, 2),
        "seconds_goal": SECONDS_GOAL,
        "private_mib": round(private / MIB, 1),
        "private_goal_mib": MEMORY_GOAL_MIB,
        "pss_mib": round(proportional / MIB, 1),
        "first_seconds_to_ready": round(first.ready_s, 2),
        "first_private_mib_alone": round(alone / MIB, 1),
        "runs": arguments.runs,
        "most_other_cores_in_use": others,
        **surroundings(),
    }
    print(
        f"second process ready in {found['seconds_to_ready']} s (goal {SECONDS_GOAL} s) with"
        f" {found['private_mib']} MiB of its own (goal {MEMORY_GOAL_MIB}), PSS"
        f" {found['pss_mib']} MiB; the first: {found['first_seconds_to_ready']} s,"
        f" {found['first_private_mib_alone']} MiB"
    )
    names = ("date", "commit", "seconds_to_ready", "private_mib", "pss_mib",
             "first_seconds_to_ready", "first_private_mib_alone")  # fmt: skip
    print(f"| {' | '.join(str(found[name]) for name in names)} |")
    print(json.dumps(found, sort_keys=True))
    return 0


def _start(bundle: Path, log: Path, flags: list[str]) -> tuple[float, float, float]:
    """Seconds to ready, USS and PSS of one start."""
    with DecoderProcess(bundle, log, flags) as second:
        pid = second.process.pid
        return second.ready_s, private_bytes(pid), proportional_bytes(pid)


if __name__ == "__main__":
    sys.exit(main())
