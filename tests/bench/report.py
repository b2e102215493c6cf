"""What a comparison looks like: tables, rows of results/compare.md and the last line's JSON."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tests.bench.figures import OURS, Comparison


def show(
    found: Sequence[Comparison],
    ceilings: Mapping[str, float],
    descriptions: Mapping[str, str],
    about: str,
) -> None:
    """Prints ratios, tokens per second, and rows of results/compare.md beginning with `about`."""
    console = Console(width=160)
    peers = [name for name in descriptions if name != OURS]
    table = Table(title="tokens per second", title_justify="left")
    for column in ("figure", "ratio", "goal", "best peer", OURS, "ceiling", "share", *peers):
        table.add_column(column, justify="left" if column in ("figure", "best peer") else "right")
    for comparison in found:
        table.add_row(*_cells(comparison, ceilings, peers))
    console.print(table)
    for name, text in descriptions.items():
        console.print(f"{name}: {text}", highlight=False, markup=False, soft_wrap=True)
    for comparison in found:
        for error in comparison.errors.values():
            text = f"{comparison.figure.name}: {error}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    for comparison in found:
        cells = [about, *_cells(comparison, ceilings, peers)]
        row = f"| {' | '.join(cells)} |"
        console.print(row, highlight=False, markup=False, soft_wrap=True)


def to_json(
    found: Sequence[Comparison],
    ceilings: Mapping[str, float],
    descriptions: Mapping[str, str],
    size: str,
) -> dict[str, object]:
    """Everything measured, for programs."""
    return {
        "size": size,
        "engines": dict(descriptions),
        "figures": {
            comparison.figure.name: {
                "ratio": comparison.ratio,
                "goal": comparison.figure.goal,
                "best_peer": comparison.best_peer,
                "ratios": dict(comparison.ratios),
                "tokens_per_second": dict(comparison.tokens_per_second),
                "ceiling_tokens_per_second": ceilings.get(comparison.figure.name),
                "rounds": comparison.rounds,
                "errors": dict(comparison.errors),
            }
            for comparison in found
        },
    }


def _cells(
    comparison: Comparison, ceilings: Mapping[str, float], peers: Sequence[str]
) -> list[str]:
    speeds = comparison.tokens_per_second
    ceiling = ceilings.get(comparison.figure.name)
    ours = speeds.get(OURS)
    share = "-" if ceiling is None or ours is None else f"{ours / ceiling:.0%}"
    return [
        comparison.figure.name,
        _number(comparison.ratio, "{:.2f}x"),
        f"{comparison.figure.goal:.1f}x",
        comparison.best_peer or "-",
        _number(ours),
        _number(ceiling),
        share,
        *(_number(speeds.get(peer)) for peer in peers),
    ]


def _number(value: float | None, form: str = "{:.1f}") -> str:
    return "-" if value is None else form.format(value)
