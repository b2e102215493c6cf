"""Markdown on a terminal while it is written: whole blocks in form, the unfinished one as it is."""

import re
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_BLANK = re.compile(r"\n[ \t]*\n")


class MarkdownStream:
    """Prints a text that grows; use as a context manager, which prints the last block.

    Blocks are what blank lines part. The one that still grows stands below the printed ones as
    plain text, its last lines where it is higher than the terminal.

    Args:
        console: A terminal that can move its cursor.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._growing = ""
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._print(self._growing)

    def add(self, text: str) -> None:
        """Shows more of the text; without control characters."""
        whole, self._growing = split_blocks(self._growing + text)
        self._print(whole)
        self._live.update(self._last_lines(), refresh=True)

    def _print(self, blocks: str) -> None:
        if blocks.strip():
            # A link is shown with its address: the model's must not hide behind another text.
            self._console.print(Markdown(blocks, hyperlinks=False))

    def _last_lines(self) -> Text:
        width, height = self._console.size
        lines = Text(self._growing).wrap(self._console, width)
        return Text("\n").join(lines[-(height - 2) :])


def split_blocks(text: str) -> tuple[str, str]:
    """Parts a Markdown text behind its last blank line that is outside of code fences.

    Returns:
        The whole blocks, and what may still grow.
    """
    for blank in reversed(list(_BLANK.finditer(text))):
        if len(_FENCE.findall(text[: blank.start()])) % 2 == 0:
            return text[: blank.end()], text[blank.end() :]
    return "", text
