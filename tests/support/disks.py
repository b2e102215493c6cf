"""Disks that are full, or may only be read."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, *, kib: int = 64) -> Iterator[Path]:
    """A file system of its own at `folder`; mounting takes root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> None:
    """Leaves no room."""
    with (disk / "all-there-is").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def forbid_writing(disk: Path) -> None:
    """Lets nothing be written from now on, by anybody."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
