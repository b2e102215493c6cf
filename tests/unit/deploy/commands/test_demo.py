"""What the demonstration tells its user to type next."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from deploy.commands import demo


@pytest.mark.parametrize(
    ("called", "is_found", "typed"),
    [
        (".venv/bin/tandem", False, ".venv/bin/tandem"),
        (".venv/bin/tandem", True, "tandem"),
        ("deploy/cli/__main__.py", False, "tandem"),
    ],
)
def test_the_next_commands_are_there_for_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, called: str, is_found: bool, typed: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "tandem").write_text("#!/bin/sh\n")
    (folder / "tandem").chmod(0o755)
    monkeypatch.setattr(sys, "argv", [called, "demo"])
    monkeypatch.setenv("PATH", str(folder) if is_found else "/nowhere")
    written = io.StringIO()
    demo._sum_up(Console(file=written), [], 1.0, Path("/cache/demo-int4"))
    commands = [line.split() for line in written.getvalue().splitlines() if line.startswith("  ")]
    assert [command[:2] for command in commands] == [[typed, "serve"], [typed, "export"]]
    assert commands[0][2] == "/cache/demo-int4"
