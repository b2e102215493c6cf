"""`make schema`: every route beside /openapi.json, with what the document allows and forbids.

    python -m tests.schema [--examples N] [--seed N] [--part NAME ...]

Parts, each a run of schemathesis against a gateway of its own:

    boundaries  every boundary of every field, and methods that are not there; tiers are stubs
    drawn       bodies drawn at random, and sequences of requests; tiers are stubs
    keys        some of both with keys, shown, wrong and missing; tiers are stubs
    stack       a few drawn bodies with the demonstration's model behind them

Prints each part's report, and one JSON line last; exit code 1 where an answer was not as told.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.commands.demo import CHECKPOINT, demo_bundle
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from tests.bench.gateway_load.run import gateway
from tests.schema.command import command, environment
from tests.support.bundles import checkpoint
from tests.support.prompts import processor_bundle

KEY = "key-of-the-schema-run"
MOST_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One run: its phases, its share of the examples, whether keys are set and tiers are stubs."""

    phases: tuple[str, ...]
    share: float = 1.0
    keyed: bool = False
    stubs: bool = True


PARTS = {
    "boundaries": Part(phases=("coverage",)),
    "drawn": Part(phases=("fuzzing", "stateful")),
    "keys": Part(phases=("fuzzing",), share=0.1, keyed=True),
    "stack": Part(phases=("fuzzing",), share=0.03, stubs=False),
}


@contextmanager
def served(part: Part, folder: Path) -> Iterator[str]:
    """The URL of a gateway for a part; its bundle and logs are in `folder`."""
    if part.stubs:
        changes = {"model_id": "test"}
        bundle = processor_bundle(checkpoint("tied"), folder / "bundle", manifest_changes=changes)
        flags = [f"--api-key={KEY}"] if part.keyed else []
        with gateway(bundle.path, f"--most-tokens={MOST_TOKENS}", flags=flags) as stubbed:
            yield f"http://127.0.0.1:{stubbed.http}"
        return
    bundle_path = demo_bundle(Console(), CHECKPOINT, "int4")
    stack = LocalStack(
        StackSettings(bundle=bundle_path, ports=ANY_FREE, log_dir=folder / "logs", environment={})
    )
    stack.start()
    try:
        yield stack.http_url.removesuffix("/v1")
    finally:
        stack.stop()


def run(part: Part, *, examples: int, seed: int) -> dict[str, float]:
    """Runs one part, shows its report and returns its figures."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tandem-schema-") as folder:
        with served(part, Path(folder)) as url:
            asked = command(
                url,
                phases=part.phases,
                examples=max(3, round(examples * part.share)),
                seed=seed,
                key=KEY if part.keyed else None,
            )
            told = subprocess.run(
                asked, env=environment(), cwd=folder, stdout=subprocess.PIPE, text=True
            )
    sys.stdout.write(told.stdout)
    found = re.search(r"(\d+) generated", told.stdout)
    return {
        "requests": 0 if found is None else int(found[1]),
        "is_wrong": int(told.returncode != 0),
        "seconds": round(time.monotonic() - began),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    wanted = parser.parse_args(arguments)
    figures = {}
    for name in wanted.part or PARTS:
        sys.stdout.write(f"\n{name}\n")
        figures[name] = run(PARTS[name], examples=wanted.examples, seed=wanted.seed)
    sys.stdout.write(json.dumps(figures) + "\n")
    return int(any(figure["is_wrong"] for figure in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
