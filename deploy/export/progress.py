"""Progress bars with sizes and the time left, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Advance = Callable[[int], None]  # bytes done since the last call


class ExportProgress:
    """One bar per stage and one of all; on anything but a terminal, a line per finished stage."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def expect(self, total: int) -> None:
        """Adds the bar of all stages, which tells the time left; `total` bytes, nearly."""
        self._all = self._progress.add_task("all", total=total)

    def skip(self, size: int) -> None:
        """Counts the bytes of a stage that need not run."""
        if self._all is not None:
            self._progress.advance(self._all, size)

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """A bar of `total` bytes; yields the function that advances it."""
        task = self._progress.add_task(name, total=total)

        def advance(size: int) -> None:
            self._progress.advance(task, size)
            self.skip(size)

        yield advance
        self._progress.update(task, completed=total)
        if not self._console.is_terminal:
            self.note(f"{name}: done, {total / 2**20:.1f} MiB")

    def note(self, text: str) -> None:
        """Prints one line beside the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
