"""Figures of a load on the terminal: a table, and how first tokens spread over time."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from deploy.load.figures import CHUNKS, Figures, Spread
from deploy.load.records import Record

BARS = "█▏▎▍▌▋▊▉"  # whole, then eighths
BINS = 12
WIDTH = 40
LATE_MS = 50.0  # a client this late is a part of what it measures


def show(console: Console, figures: Figures, records: Sequence[Record]) -> None:
    """Prints table, notes and plot; all fit a terminal of 80 columns."""
    console.print(_title(figures), highlight=False, markup=False, soft_wrap=True)
    console.print(_table(figures))
    for line in _lines(figures):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in histogram([r.ttft_s for r in records if r.answer.error is None and r.ttft_s]):
        console.print(line, highlight=False, markup=False)


def _title(figures: Figures) -> str:
    plan = figures.plan
    if plan.rate is not None:
        bound = f", at most {plan.concurrency} at once" if plan.concurrency else ""
        how = f"{plan.rate:g} requests/s{bound}"
    else:
        how = f"{plan.concurrency or 1} at once"
    return f"{figures.model} at {plan.url}: {how}, {figures.duration_s:.1f} s"


def _table(figures: Figures) -> Table:
    table = Table("milliseconds")
    for name in ("mean", "p50", "p90", "p99", "most"):
        table.add_column(name, justify="right")
    for name, spread in (
        ("time to first token", figures.ttft_ms),
        ("between pieces", figures.itl_ms),
        ("per token", figures.per_token_ms),
        ("whole answer", figures.e2e_ms),
        ("client's delay", figures.lag_ms),
    ):
        if spread is not None:
            table.add_row(name, *_cells(spread))
    return table


def _cells(spread: Spread) -> list[str]:
    values = (spread.mean, spread.p50, spread.p90, spread.p99, spread.most)
    return [f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in values]


def _lines(figures: Figures) -> list[str]:
    plan = figures.plan
    lines = [
        f"{figures.answered} answers, {figures.requests_per_s:.2f} a second; "
        f"{figures.completion_tokens:,} tokens, {figures.tokens_per_s:.1f} a second"
    ]
    if figures.tokens_counted_by == CHUNKS and figures.answered:
        lines.append("the endpoint tells no usage: each piece of text counts as one token")
    targets = [("first", plan.ttft_ms), ("each", plan.itl_ms)]
    named = [f"{name} token {limit:g} ms" for name, limit in targets if limit is not None]
    if named:
        asked = figures.answered + sum(figures.errors.values())
        lines.append(
            f"goodput {figures.goodput_per_s:.2f} a second: {figures.good} of {asked} within "
            + ", ".join(named)
        )
    lines += [f"{count} failed: {kind}" for kind, count in sorted(figures.errors.items())]
    if figures.unfinished:
        lines.append(f"{figures.unfinished} were not finished")
    if plan.rate is not None and figures.lag_ms and figures.lag_ms.p99 > LATE_MS:
        lines.append(
            "requests were sent late: this machine, or the bound on requests at once, is too"
            " slow for the rate; times count from when they were due"
        )
    return lines


def histogram(seconds: Sequence[float | None]) -> list[str]:
    """How many values lie where, one line for each of some equal ranges; [] below two values."""
    values = [value * 1e3 for value in seconds if value is not None]
    if len(values) < 2 or max(values) == min(values):
        return []
    least, step = min(values), (max(values) - min(values)) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(int((value - least) / step), BINS - 1)] += 1
    lines = ["time to first token, answers by ms"]
    for index, count in enumerate(counts):
        length, rest = divmod(round(count / max(counts) * WIDTH * 8), 8)
        bar = BARS[0] * length + (BARS[rest] if rest else "")
        lines.append(f"{least + index * step:>9,.0f} {bar}{f' {count}' if count else ''}")
    return lines
