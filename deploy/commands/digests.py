"""Every byte of a bundle compared with its manifest."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from deploy.terminal.screen import CommandError
from protos.bundle.manifest import Bundle

BLOCK_BYTES = 4 * 1024 * 1024


def check_digests(console: Console, bundle: Bundle) -> None:
    """Hashes all files with a progress bar.

    Raises:
        CommandError: a file is missing or differs; names every one of them.
    """
    files = bundle.manifest.files
    with Progress(
        TextColumn("checking digests"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=sum(entry.size for entry in files.values()))
        wrong = [
            name
            for name, entry in files.items()
            if _sha256(bundle.path / name, lambda size: progress.advance(task, size))
            != entry.sha256
        ]
    if wrong:
        raise CommandError(
            f"the bundle is damaged: {', '.join(sorted(wrong))} differ from the manifest;"
            " export the checkpoint again",
            exit_code=2,
        )


def _sha256(path: Path, advance: Callable[[int], None]) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                advance(len(block))
    except OSError:
        return None
    return digest.hexdigest()
