"""Markdown documents of the repository as tests read them: tables, code blocks, names of files."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_SEPARATOR = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of a document.

    Attributes:
        line: Line number of its header, from 1.
        header: Cells of the header.
        rows: Cells of each row; a row may have too many or too few.
    """

    line: int
    header: list[str]
    rows: list[list[str]]


def documents() -> list[Path]:
    """Every Markdown document that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in listed.stdout.splitlines())
    return sorted({path for path in paths if path.is_file()})


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines outside fenced code blocks."""
    in_code = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield number, line


def spans(text: str) -> list[str]:
    """What stands in backticks in a line, outside fenced code blocks."""
    return [span for _, line in prose(text) for span in _SPAN.findall(line)]


def cells(line: str) -> list[str]:
    """Cells of a line of a table, without their padding."""
    return [cell.strip() for cell in _CELL_BORDER.split(line.strip())[1:-1]]


def tables(text: str) -> list[Table]:
    """Every table; a line of cells outside one is a table without rows, as renderers see it.

    Renderers see a table where a line of dashes follows the header, and end it at a line that
    begins otherwise.
    """
    found = list[Table]()
    before = -1  # the last line of the table that is being read
    is_open = False
    for number, line in prose(text):
        if not line.startswith("|"):
            continue
        if number != before + 1:
            found.append(Table(line=number, header=cells(line), rows=[]))
            is_open = False
        elif is_open:
            found[-1].rows.append(cells(line))
        elif _SEPARATOR.fullmatch(line.strip()) and len(cells(line)) == len(found[-1].header):
            is_open = True
        before = number
    return found
