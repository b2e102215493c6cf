"""A plan as a table, a curve for the terminal, one line of JSON, and a drawing."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from planner.load import Load
from planner.search import Found
from planner.simulation.outcome import Outcome

BAR = 32  # characters
WIDTH, HEIGHT, MARGIN = 640, 360, 56  # of a drawing


def show(console: Console, load: Load, found: Found, curve: Sequence[Outcome]) -> None:
    """Prints a plan and its curve, within 80 columns."""
    verdict = "meets" if found.meets else "misses"
    console.print(f"{nodes(found.outcome)}: {verdict} the targets", highlight=False)
    console.print(plan_table(load, found))
    if len(curve) > 1:
        console.print(curve_table(curve, found.outcome))


def plan_table(load: Load, found: Found) -> Table:
    """The plan, what it should give, and the targets beside it."""
    outcome = found.outcome
    table = Table("")
    for heading in ("p50", "p99", "target"):
        table.add_column(heading, justify="right")
    table.add_row(
        "first token",
        _seconds(outcome.ttft_p50_s),
        _seconds(outcome.ttft_p99_s),
        _seconds(load.ttft_s),
    )
    table.add_row(
        "between tokens",
        _seconds(outcome.itl_p50_s),
        _seconds(outcome.itl_p99_s),
        _seconds(load.itl_s),
    )
    table.add_row("replicas busy", f"{outcome.replica_use:.0%}", "", "")
    table.add_row("decoders busy", f"{outcome.decoder_use:.0%}", "", "")
    table.add_row("slots held", f"{outcome.slot_use:.0%}", "", "")
    for name, cores, use in (
        ("gateway cores busy", outcome.gateway_cores, outcome.gateway_use),
        ("front cores busy", outcome.front_cores, outcome.front_use),
    ):
        if cores:
            table.add_row(name, f"{use:.0%}", f"of {cores}", "")
    table.add_row("within both targets", f"{outcome.good:.1%}", "", f"{outcome.goodput:.2f}/s")
    table.add_row("refused", f"{outcome.refused}", "", "0")
    return table


def curve_table(curve: Sequence[Outcome], best: Outcome) -> Table:
    """Goodput over the ratio of replicas to decoders, at one number of nodes."""
    most = max(outcome.goodput for outcome in curve) or 1.0
    table = Table("replicas:decoders", title="other ratios", title_justify="left")
    table.add_column("p99 first", justify="right")
    table.add_column("good/s", justify="right")
    table.add_column("", width=BAR + 2)
    for outcome in curve:
        chosen = (outcome.replicas, outcome.decoders) == (best.replicas, best.decoders)
        table.add_row(
            f"{outcome.replicas}:{outcome.decoders}",
            _seconds(outcome.ttft_p99_s),
            f"{outcome.goodput:.2f}",
            "█" * round(BAR * outcome.goodput / most) + (" ◀" if chosen else ""),
        )
    return table


def to_json(load: Load, found: Found, curve: Sequence[Outcome]) -> str:
    """One line of JSON."""
    made = {
        "meets": found.meets,
        "plan": asdict(found.outcome),
        "curve": [asdict(outcome) for outcome in curve],
        "load": asdict(load),
    }
    return json.dumps(made, sort_keys=True)


def drawing(curve: Sequence[Outcome], best: Outcome) -> str:
    """An SVG of goodput over the ratio, the plan marked."""
    points = sorted(curve, key=lambda outcome: outcome.replicas / outcome.decoders)
    most = max((outcome.goodput for outcome in points), default=0.0) or 1.0
    across = (WIDTH - 2 * MARGIN) / max(1, len(points) - 1)
    places = [
        (MARGIN + across * index, HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * one.goodput / most)
        for index, one in enumerate(points)
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(WIDTH / 2, 24, f"requests per second within both targets, {nodes(best)}"),
        _text(WIDTH / 2, HEIGHT - 12, "encoder replicas : decoders"),
        '<polyline fill="none" stroke="steelblue" stroke-width="2" points="'
        + " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        + '"/>',
    ]
    for one, (x, y) in zip(points, places, strict=True):
        chosen = (one.replicas, one.decoders) == (best.replicas, best.decoders)
        colour = "crimson" if chosen else "steelblue"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        parts.append(_text(x, y - 10, f"{one.goodput:.2f}"))
        parts.append(_text(x, HEIGHT - MARGIN + 18, f"{one.replicas}:{one.decoders}"))
    return "\n".join([*parts, "</svg>", ""])


def nodes(outcome: Outcome) -> str:
    """How many there are of each, in words."""
    replicas, decoders = outcome.replicas, outcome.decoders
    return (
        f"{replicas} encoder replica{'' if replicas == 1 else 's'} and"
        f" {decoders} decoder{'' if decoders == 1 else 's'}"
    )


def _seconds(value: float) -> str:
    return f"{value * 1e3:,.0f} ms" if value < 10 else f"{value:,.1f} s"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'
