"""`make soak`: an hour of mixed load and cancelled streams on real services, and what they hold.

    python -m tests.soak [--seconds N] [--requests N] [--cancelled N] [--folder FOLDER]
    python -m tests.soak --judge FOLDER [--warm-up SHARE]   # the verdict on a run, once more

Phases of load with rests between them. Every answer is checked; at every rest the decoder must
have no sequence and the vision tier no image. Prints a table, draws `soak.png` in the folder, and
one JSON line last; exit code 1 where something was wrong or rose.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Read when gRPC is imported: processes are started beside its threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

WORK_S, SETTLE_S = 75.0, 8.0  # of a phase; then idle connections end on both sides
IDLE_TIMEOUT_S = 60.0
SAMPLE_S = 5.0
RESTING_SAMPLES = 3
WARM_UP = 0.5  # of the time; at 3 requests a second, arenas and caches grow for half an hour


async def endure(site: Any, bank: Any, arguments: argparse.Namespace) -> None:
    """Phases and rests until the time is over; what came of them lies in the folder."""
    from tests.soak.load import Load, Wanted, until
    from tests.soak.samples import Sampler

    wanted = Wanted(requests=arguments.requests, cancelled=arguments.cancelled)
    load, ledger_file = Load(site.url, bank, wanted), arguments.folder / "ledger.json"
    sampler = Sampler(site, arguments.folder / "samples.jsonl")
    end_s, busy, rest = time.monotonic() + arguments.seconds, list[str](), 0
    work_s = min(WORK_S, arguments.seconds / 8)
    await load.burst()
    while (left_s := end_s - time.monotonic()) > work_s / 2:
        async with sampler.every(SAMPLE_S):
            await load.work(min(work_s, left_s), left_s * work_s / (work_s + SETTLE_S + 3))
        if not await until(lambda: not any(site.at_work().values()), IDLE_TIMEOUT_S):
            busy.append(f"at rest {rest}: {site.at_work()}")
        await asyncio.sleep(SETTLE_S)
        for _ in range(RESTING_SAMPLES):
            await sampler.take(rest)
            await asyncio.sleep(0.5)
        rest += 1
        told = {**load.ledger.told(), "busy": busy, "rests": rest, "wanted": asdict(wanted)}
        ledger_file.write_text(json.dumps(told, indent=1))
        sys.stderr.write(
            f"{time.strftime('%H:%M:%S')} rest {rest}: {load.ledger.answered.total()} answered, "
            f"{load.ledger.cut.total()} cancelled, {load.ledger.wrong.total()} wrong, busy {busy}\n"
        )


def run(arguments: argparse.Namespace) -> None:
    """The whole run; what it finds lies in the folder."""
    from tests.soak.bank import Bank
    from tests.soak.site import Site
    from tests.support.bundles import demo_bundle

    bank = Bank.drawn()
    with Site(demo_bundle("int4"), arguments.folder / "logs") as site:
        asyncio.run(endure(site, bank, arguments))


def judge(folder: Path, warm_up: float) -> int:
    """Prints the verdict on a run."""
    from tests.soak.report import verdict

    return verdict(folder, warm_up)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--cancelled", type=int, default=2_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--judge", type=Path)
    parser.add_argument("--warm-up", type=float, default=WARM_UP, help="share that does not count")
    given = parser.parse_args(arguments)
    if given.judge is None:
        given.folder = given.folder or Path(tempfile.mkdtemp(prefix="tandem-soak-"))
        given.folder.mkdir(exist_ok=True)
        run(given)
    return judge(given.judge or given.folder, given.warm_up)


if __name__ == "__main__":
    sys.exit(main())
