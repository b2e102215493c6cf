"""What the commands show on the terminal."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from protos.bundle.manifest import Bundle

TIER_COLOURS = {"vision": "magenta", "decoder": "cyan", "gateway": "green"}
TIER_WIDTH = 8


class CommandError(Exception):
    """A command cannot go on; the text is the one line shown, `exit_code` the process's."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Where a command writes: what was asked for, and what is told about it.

    They are two so that a pipe or a file gets the answers alone.
    """

    answers: Console
    notes: Console

    @classmethod
    def of_process(cls) -> Self:
        """Standard output and standard error."""
        return cls(answers=Console(), notes=Console(stderr=True))

    def note(self, text: str, *, style: str = "dim") -> None:
        """Tells something beside the answer; `text` is plain, not markup."""
        self.notes.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def examples(*lines: str) -> str:
    """Commands for the end of a command's help, a line each."""
    return "\n\n".join(["", "Examples:", *(f"  {escape(line)}" for line in lines)])


def describe_bundle(bundle: Bundle) -> str:
    """One line: which model, how quantized, which digest."""
    manifest = bundle.manifest
    graph = manifest.graph
    block = f", block {graph.block_size}" if graph.block_size else ""
    return (
        f"[bold]{escape(manifest.model_id)}[/bold]  {graph.precision}{block}"
        f"  [dim]digest {bundle.digest[:12]}[/dim]"
    )


def show_ready(console: Console, tier: str, *, ports: Mapping[str, int], seconds: float) -> None:
    """Prints that a tier serves: its ports by kind, and how long its start took."""
    shown = "  ".join(f"{kind} {port}" for kind, port in sorted(ports.items()))
    console.print(
        f"[{TIER_COLOURS[tier]}]{tier:<{TIER_WIDTH}}[/] ready in {seconds:5.1f} s"
        f"  [dim]{shown}[/dim]",
        highlight=False,
        soft_wrap=True,
    )


def show_starting(console: Console, tier: str, *, seconds: float, doing: str) -> None:
    """Prints that a tier does not serve yet, and the last it said."""
    console.print(
        f"[{TIER_COLOURS[tier]}]{tier:<{TIER_WIDTH}}[/] starting {seconds:5.1f} s"
        f"  [dim]{escape(doing)}[/dim]",
        highlight=False,
        soft_wrap=True,
    )


def echo_logs(console: Console) -> Callable[[str, str], None]:
    """Prints the services' log lines, each after its tier's name."""

    def echo(tier: str, line: str) -> None:
        name = Text(f"{tier:<{TIER_WIDTH}} ", style=TIER_COLOURS[tier])
        console.print(name + Text(plain_log_line(line)), soft_wrap=True)

    return echo


def plain_log_line(line: str) -> str:
    """A JSON log record as a readable line; other lines as they are."""
    try:
        record = json.loads(line)
        text = f"{record['level']} {record['logger']}: {record['message']}"
    except (ValueError, TypeError, KeyError):
        return line
    return f"{text}\n{record['traceback']}" if "traceback" in record else text
