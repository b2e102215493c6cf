"""`make faults`: what an attacker and a bad day try, at its limit, on real services.

    python -m tests.faults [--row NAME ...] [--share N] [--folder FOLDER]

Rows, each with what its limit is:

    schemas      5,000 requests, each with a schema that nobody had before
    messages     10,000 random or damaged messages at each of the three gRPC servers
    connections  10,000 idle connections to each server; a mebibyte of metadata; 10,000 pings
    deadlines    200 calls each with 50 ms and with none left; none and years
    overload     200 images at once; ten times what the stack can answer
    scrapes      2,000 scrapes of every tier's metrics, and as many requests with odd names

Around every row a canary's answers must stay the same and flow, health be answered within a second,
every process stay, and nothing be at work afterwards; then a good question is answered. Prints a
table and one JSON line last; exit code 1 where something was not as it must be. `--share 0.1` tries
a tenth of every limit.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Read when gRPC is imported: processes are started beside its threads.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

NAMES = ("schemas", "messages", "connections", "deadlines", "overload", "scrapes")


def run(names: Sequence[str], share: float, folder: Path) -> dict[str, Any]:
    """Tries rows in turn on a stack of their own; what came of each, by name."""
    from tests.faults.doors import Doors
    from tests.faults.rows import ROWS, good_question
    from tests.faults.watch import watched
    from tests.soak.bank import Bank
    from tests.soak.site import KEYS, Site
    from tests.support.bundles import demo_bundle

    # A small queue, so that the overload is one on any machine.
    flags = {"vision": ("--replicas=2",), "gateway": ("--max-in-flight=32",)}
    image = Bank.drawn(large=0).images[0]
    told = {}
    with Site(demo_bundle("int4"), folder / "logs", flags) as site:
        doors = Doors(
            url=site.url,
            grpc=site.addresses,
            metrics=site.metrics,
            key=KEYS[0],
            image=image.images[0],
        )

        async def tried(name: str) -> dict[str, Any]:
            row, began = ROWS[name], time.monotonic()
            found = await watched(
                site, doors, KEYS[1], lambda doors: row.attempt(doors, share), bounded=row.bounded
            )
            await good_question(doors, image.text, found)
            seconds = round(time.monotonic() - began)
            return {"seconds": seconds, "figures": found.figures, "faults": found.faults}

        for name in names:
            told[name] = asyncio.run(tried(name))
            sys.stderr.write(f"{name}: {json.dumps(told[name])}\n")
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--row", action="append", choices=NAMES)
    parser.add_argument("--share", type=float, default=1.0, help="of every limit")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args(arguments)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tandem-faults-"))
    folder.mkdir(exist_ok=True)
    told = run(given.row or NAMES, given.share, folder)
    from tests.faults.rows import show

    show(told)
    sys.stdout.write(json.dumps(told) + "\n")
    return int(any(row["faults"] for row in told.values()))


if __name__ == "__main__":
    sys.exit(main())
