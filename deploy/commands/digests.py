"""Every byte of a bundle compared with its manifest."""

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
from protos.bundle.manifest import PARTS, Bundle, BundleError


def check_digests(console: Console, bundle: Bundle) -> None:
    """Hashes all files with a progress bar.

    Raises:
        CommandError: a file is missing or differs; names every one of them.
    """
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
        task = progress.add_task(
            "", total=sum(file.size for file in bundle.manifest.files.values())
        )
        try:
            bundle.verify_files(PARTS, advance=lambda size: progress.advance(task, size))
        except BundleError as error:
            raise CommandError(f"{error}; export the checkpoint again", exit_code=2) from error
