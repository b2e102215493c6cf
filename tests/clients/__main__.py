"""Runs real clients against a real stack that serves the demonstration model: `make clients`.

    python -m tests.clients                 all of them
    python -m tests.clients LangChain llm   some of them

Each client has an environment of its own under `.cache/clients`, made at its first run. The table
at the end has a row for each; the exit status is 1 when a check failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from deploy.commands.demo import CHECKPOINT, demo_bundle
from deploy.stack.local import LocalStack, StackSettings
from deploy.stack.ports import ANY_FREE
from protos.bundle.manifest import Bundle
from tests.clients.environments import CLIENTS, Client, Unavailable, command, import_path, install

KEY = "key-of-the-clients"
TIMEOUT_S = 600.0
SHOWN = ("ok ", "FAILED ")  # how lines of checks begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a client."""

    client: Client
    passed: int = 0
    failed: int = 0
    note: str = ""  # why it was not run

    @property
    def is_bad(self) -> bool:
        """Whether a check failed."""
        return self.failed > 0

    def result(self) -> str:
        """The last column of the table."""
        if not self.passed and not self.failed:
            return f"not run: {self.note}"
        return f"{self.failed} failed" if self.failed else "ok"


def main(arguments: Sequence[str] | None = None) -> int:
    """The programme; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients")
    names = [client.name for client in CLIENTS]
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(names))
    wanted = parser.parse_args(arguments).clients
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        parser.error(f"no client is called {unknown[0]}")
    console = Console()
    chosen = [client for client in CLIENTS if not wanted or client.name in wanted]
    outcomes = [_installed(console, client) for client in chosen]
    with tempfile.TemporaryDirectory(prefix="tandem-clients-") as folder:
        outcomes = _run_all(console, outcomes, Path(folder))
    console.print(_table(outcomes))
    return 1 if any(outcome.is_bad for outcome in outcomes) else 0


def _installed(console: Console, client: Client) -> Outcome:
    try:
        with console.status(f"installing {client.name} {client.version}"):
            install(client)
    except Unavailable as error:
        return Outcome(client=client, note=str(error))
    return Outcome(client=client)


def _run_all(console: Console, outcomes: Sequence[Outcome], folder: Path) -> list[Outcome]:
    bundle = demo_bundle(console, CHECKPOINT, "int4")
    image = folder / "circle.png"
    _draw(image)
    settings = StackSettings(
        bundle=bundle,
        ports=ANY_FREE,
        log_dir=folder / "logs",
        environment={"gateway": {"GATEWAY_API_KEY": KEY}},
    )
    with console.status("starting the services"):
        stack = LocalStack(settings)
        stack.start()
    try:
        given = {
            "TANDEM_CLIENT_URL": stack.http_url,
            "TANDEM_CLIENT_KEY": KEY,
            "TANDEM_CLIENT_VISION": stack.addresses["vision"],
            "TANDEM_CLIENT_MODEL": Bundle.open(bundle).manifest.model_id,
            "TANDEM_CLIENT_IMAGE": str(image),
            "TANDEM_CLIENT_TOKENIZER": str(CHECKPOINT),
        }
        return [
            outcome if outcome.note else _run(console, outcome.client, given, folder)
            for outcome in outcomes
        ]
    finally:
        stack.stop()


def _run(console: Console, client: Client, given: Mapping[str, str], folder: Path) -> Outcome:
    """Runs a client's script, shows its lines, and counts them."""
    console.print(f"\n[bold]{client.name}[/bold] {client.version}", highlight=False)
    work = folder / client.folder.name
    work.mkdir()
    # A home of its own, so that a client neither reads nor leaves anything in the user's.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")},
        **given,
        "HOME": str(work),
        "TANDEM_CLIENT_WORK": str(work),
        "PYTHONPATH": str(import_path()),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        done = subprocess.run(
            command(client),
            env=environment,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        console.print(f"FAILED: not done within {TIMEOUT_S:.0f} s", markup=False)
        return Outcome(client=client, failed=1)
    lines = [line for line in done.stdout.splitlines() if line.startswith(SHOWN)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    passed = sum(line.startswith("ok ") for line in lines)
    failed = sum(line.startswith("FAILED ") for line in lines)
    if done.returncode != 0:
        console.print(done.stderr[-2000:], markup=False, highlight=False, style="dim")
        failed = max(failed, 1)
    return Outcome(client=client, passed=passed, failed=failed)


def _draw(path: Path) -> None:
    """A red circle on white."""
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).ellipse((68, 68, 188, 188), fill="red")
    image.save(path)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("client", "version")
    table.add_column("checks", justify="right")
    table.add_column("result")
    for outcome in outcomes:
        count = outcome.passed + outcome.failed
        table.add_row(
            outcome.client.name, outcome.client.version, str(count or "-"), outcome.result()
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
