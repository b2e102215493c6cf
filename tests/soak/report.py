"""The verdict on a run, from what it wrote into its folder: tables, a plot, and JSON last."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak import plot
from tests.soak.census import OURS
from tests.soak.samples import Sample, read
from tests.soak.trend import BOUND, EQUAL, MEMORY, MIB, NOISE, Trend, trends

LEAST_RIGHT = 0.95  # of answers that are known


def verdict(folder: Path, warm_up: float) -> int:
    """Prints what a run found and draws it.

    Args:
        folder: Of the run.
        warm_up: Share of its time that does not count.

    Returns:
        The exit code: 1 where something was wrong or rose.
    """
    samples = read(folder / "samples.jsonl")
    ledger = json.loads((folder / "ledger.json").read_text())
    found = trends(samples, warm_up=warm_up)
    faults = [*_rising(found), *_wrong(ledger)]
    console = Console(width=110)
    console.print(_requests(ledger))
    console.print(_memory(samples, found))
    console.print(_counts(found))
    for note in (*ledger["notes"], *faults):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    plot.draw(folder / "soak.png", samples)
    console.print(f"plot in {folder / 'soak.png'}", highlight=False, markup=False, soft_wrap=True)
    summary = {
        "seconds": samples[-1].at_s,
        **ledger,
        "trends": [asdict(each) for each in found],
        "faults": faults,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(bool(faults))


def _rising(found: Sequence[Trend]) -> list[str]:
    return [
        f"{each.role}: {each.quantity} {each.first:.1f}, then {each.last:.1f} "
        f"({each.slope:+.1f} an hour)"
        for each in found
        if each.is_flat is False
    ]


def _wrong(ledger: Mapping[str, Any]) -> list[str]:
    """What is wrong with the requests of a run."""
    faults = [*ledger["busy"]]
    wrong = sum(ledger["wrong"].values())
    if wrong:
        faults.append(f"{wrong} requests were not answered as they must be")
    right, known = ledger["right"]
    if known and right / known < LEAST_RIGHT:
        faults.append(f"only {right} of {known} known answers were right")
    for name, kinds in (("requests", ("answered",)), ("cancelled", ("cut",))):
        done = sum(sum(ledger[kind].values()) for kind in kinds)
        if done < ledger["wanted"][name]:
            faults.append(f"{done} {name}, of {ledger['wanted'][name]} that were wanted")
    return faults


def _requests(ledger: Mapping[str, Any]) -> Table:
    table = Table("requests", title_justify="left")
    for name in ("answered", "wrong", "cancelled", "ended before"):
        table.add_column(name, justify="right")
    columns = [ledger[name] for name in ("answered", "wrong", "cut", "late")]
    for kind in sorted({kind for column in columns for kind in column}):
        table.add_row(kind, *(str(column.get(kind, "")) for column in columns))
    table.add_section()
    table.add_row("all", *(str(sum(column.values())) for column in columns))
    right, known = ledger["right"]
    table.add_row(f"known answers right: {right} of {known}")
    return table


def _memory(samples: Sequence[Sample], found: Sequence[Trend]) -> Table:
    title = f"MiB at rests; bound {BOUND:g} an hour, noise {NOISE:g}"
    table = Table("memory", title=title, title_justify="left")
    for name in ("PSS", "private", "most PSS", "", "first", "last", "an hour", "flat"):
        table.add_column(name, justify="left" if not name else "right")
    last = samples[-1].held
    for role in sorted(last, key=_order):
        most = max(each.held[role].pss for each in samples if role in each.held)
        sizes = [f"{value / MIB:.0f}" for value in (last[role].pss, last[role].private, most)]
        for each in found:
            if each.role == role and each.quantity in MEMORY and (each.first or each.last):
                numbers = (f"{each.first:.1f}", f"{each.last:.1f}", f"{each.slope:+.1f}")
                table.add_row(role, *sizes, each.quantity, *numbers, _word(each))
    shm = [each.shm for each in samples if each.rest is not None]
    levels = (f"{shm[0] / MIB:.1f}", f"{shm[-1] / MIB:.1f}")
    table.add_row("/dev/shm, all of the machine", "", "", "", "", *levels)
    return table


def _counts(found: Sequence[Trend]) -> Table:
    table = Table("at rests, first and last", title_justify="left")
    for name in EQUAL:
        table.add_column(name, justify="right")
    table.add_column("equal")
    for role in sorted({each.role for each in found}, key=_order):
        rows = {each.quantity: each for each in found if each.role == role}
        cells = [f"{rows[name].first:g} {rows[name].last:g}" for name in EQUAL]
        flat = {rows[name].is_flat for name in EQUAL}
        word = "" if None in flat else "no" if False in flat else "yes"
        table.add_row(role, *cells, word)
    return table


def _word(trend: Trend) -> str:
    return {True: "yes", False: "NO", None: ""}[trend.is_flat]


def _order(role: str) -> tuple[bool, str]:
    """Ours before Ray's own."""
    return role not in OURS, role
