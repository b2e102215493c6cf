"""The lines a command prints while the services start."""

import io

from rich.console import Console

from deploy.terminal.screen import show_ready, show_starting


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_tier_that_serves_is_told_with_its_ports_and_time() -> None:
    console = Console(file=io.StringIO(), width=40)
    show_ready(console, "gateway", ports={"http": 8000, "grpc": 50050}, seconds=12.34)
    assert printed(console) == "gateway  ready in  12.3 s  grpc 50050  http 8000\n"


def test_a_tier_that_starts_is_told_with_its_own_words_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=40)
    show_starting(console, "vision", seconds=5.0, doing="loading [red]the[/red] vision tower")
    assert printed(console) == "vision   starting   5.0 s  loading [red]the[/red] vision tower\n"
