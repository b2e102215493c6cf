"""Where splitting pays, simulated: separate tiers against nodes that do both, at equal cores.

    python -m tests.bench.split_or_not NARROW [WIDE] [--cores N] [--ttft-s S] [--itl-s S]

NARROW are costs of processes of one core (`tandem bench BUNDLE --threads 1 --costs NARROW`), WIDE
those of two. Split: as many processes of one core as there are cores, at the best of all ratios of
replicas to decoders. Whole: nodes of one core each, and with WIDE nodes of two, that compute passes
of the tower and steps of the decoder by turns, features without a wire; the better of both. Goodput
is the highest rate of requests of which 9 in 10 meet both targets, over the share of requests with
an image.

Nothing here is a real run of a whole node: its costs are those of the two tiers, and what one
process would save (one copy of the interpreter, no copy of features) is taken as zero seconds.
The last line of standard output is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from planner.costs import Costs
from planner.load import ImageSize, Load
from planner.simulation.run import Plan, simulate

SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)
GOOD = 0.9
HALVINGS = 5
SECONDS = 120.0  # of one simulation: many times what an answer takes


def main() -> int:
    """Simulates and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Split tiers against whole nodes.")
    parser.add_argument("narrow", type=Path)
    parser.add_argument("wide", type=Path, nargs="?")
    parser.add_argument("--cores", type=int, default=4)
    parser.add_argument("--ttft-s", type=float, default=2.0)
    parser.add_argument("--itl-s", type=float, default=0.1)
    parser.add_argument("--size", default="448x448")
    arguments = parser.parse_args()
    narrow = Costs.open(arguments.narrow)
    wide = Costs.open(arguments.wide) if arguments.wide is not None else None
    load = Load(
        sizes=(ImageSize.parse(arguments.size, "size"),),
        ttft_s=arguments.ttft_s,
        itl_s=arguments.itl_s,
        tokens_out=64,
    )
    console = Console(stderr=True)
    rows = [
        row(narrow, wide, load, share, arguments.cores)
        for share in track(SHARES, "shares", console=console)
    ]
    show(rows)
    print(json.dumps({"simulated": True, "cores": arguments.cores, "rows": rows}))
    return 0


def row(narrow: Costs, wide: Costs | None, load: Load, share: float, cores: int) -> dict[str, Any]:
    """Goodputs at one share of requests with an image."""
    split = best(narrow, load, share, splits(share, cores))
    whole = best(narrow, load, share, [Plan(replicas=0, decoders=cores, whole=True)])
    if wide is not None:
        pairs = best(wide, load, share, [Plan(replicas=0, decoders=cores // 2, whole=True)])
        whole = max(whole, pairs, key=lambda one: one["goodput"])
    ratio = split["goodput"] / whole["goodput"] if whole["goodput"] else None
    return {"share": share, "split": split, "whole": whole, "ratio": ratio}


def splits(share: float, cores: int) -> Iterator[Plan]:
    """Every way to divide the cores."""
    if share == 0:
        yield Plan(replicas=0, decoders=cores)
        return
    for replicas in range(1, cores):
        yield Plan(replicas=replicas, decoders=cores - replicas)


def best(costs: Costs, load: Load, share: float, plans: Iterable[Plan]) -> dict[str, float]:
    """The plan of the highest goodput; those that cannot reach it are not simulated."""
    highest = {"goodput": 0.0, "replicas": 0, "decoders": 0}
    for plan in sorted(plans, key=lambda one: -_most(costs, load, share, one)):
        if _most(costs, load, share, plan) > highest["goodput"]:
            reached = goodput(costs, load, share, plan)
            if reached > highest["goodput"]:
                highest = {"goodput": reached, "replicas": plan.replicas,
                           "decoders": plan.decoders}  # fmt: skip
    return highest


def goodput(costs: Costs, load: Load, share: float, plan: Plan) -> float:
    """The highest rate of which enough requests are good, to a thirtieth of itself."""
    low, high = 0.0, _most(costs, load, share, plan)
    for _ in range(HALVINGS):
        rate = (low + high) / 2
        asked = replace(load, images=rate * share, texts=rate * (1 - share), seconds=SECONDS,
                        warm_up_s=SECONDS / 6)  # fmt: skip
        if simulate(costs, asked, plan).good >= GOOD:
            low = rate
        else:
            high = rate
    return low


def _most(costs: Costs, load: Load, share: float, plan: Plan) -> float:
    """A rate that no plan carries: every core busy all the time."""
    size, slots = load.sizes[0], costs.decoder.slots
    encode = share * costs.encode.seconds(size.patches)
    tokens = load.tokens_in + share * size.tokens
    decode = tokens * costs.steps.prompt.linear_s
    decode += load.tokens_out * costs.steps.decode_s(slots) / slots
    if plan.whole:
        return 1.1 * plan.decoders / (encode + decode)
    return 1.1 * min(plan.decoders / decode, plan.replicas / encode if encode else 1e9)


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints the goodputs, and where one begins to win."""
    table = Table("with image", "split, good/s", "at", "whole, good/s", "nodes", "split / whole",
                  title="SIMULATED goodput at equal cores")  # fmt: skip
    for one in rows:
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        table.add_row(f"{one['share']:.0%}", f"{one['split']['goodput']:.2f}",
                      f"{one['split']['replicas']}:{one['split']['decoders']}",
                      f"{one['whole']['goodput']:.2f}", str(one["whole"]["decoders"]),
                      ratio)  # fmt: skip
    Console(width=100).print(table)
    print(crossover(rows))


def crossover(rows: Sequence[dict[str, Any]]) -> str:
    """The share of requests with an image at which the better side changes."""
    known = [(one["share"], one["ratio"]) for one in rows if one["ratio"] is not None]
    for (share, ratio), (next_share, next_ratio) in zip(known, known[1:], strict=False):
        if (ratio - 1) * (next_ratio - 1) < 0:
            place = share + (next_share - share) * (1 - ratio) / (next_ratio - ratio)
            return f"crossover at about {place:.0%} of requests with an image"
    return "no crossover between the shares looked at"


if __name__ == "__main__":
    sys.exit(main())
