"""Every Markdown document renders as it reads: whole tables, lines that fit a window."""

import re
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, documents, prose, tables

MOST_COLUMNS = 100
_LINK_TARGET = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")

DOCUMENTS = [str(path.relative_to(ROOT)) for path in documents()]


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def crooked_rows(text: str) -> list[str]:
    """What is wrong with the tables of a document."""
    wrong = list[str]()
    for table in tables(text):
        width = len(table.header)
        if not table.rows:
            wrong.append(f"line {table.line}: no header, or no rows: {table.header}")
        wrong += [
            f"table of line {table.line} has {width} columns, this row {len(row)}: {row}"
            for row in table.rows
            if len(row) != width
        ]
    return wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_of_a_table_has_as_many_cells_as_its_header(document: str) -> None:
    assert crooked_rows(text_of(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_outside_tables_fit_a_window(document: str) -> None:
    lines = enumerate(text_of(document).splitlines(), start=1)
    assert [
        f"{number}: {line}"
        for number, line in lines
        if len(line) > MOST_COLUMNS and not line.startswith("|")
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_linked_file_exists(document: str) -> None:
    folder = (ROOT / document).parent
    targets = [name for _, line in prose(text_of(document)) for name in _LINK_TARGET.findall(line)]
    assert [name for name in targets if not Path(folder / name).exists()] == []


@pytest.mark.parametrize(
    "text",
    [
        "| a | b |\n|---|---|\n| 1 |\n",
        "| a | b |\n|---|---|\n| 1 | 2 | 3 |\n",
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\n",
        "| a | b |\n|---|\n| 1 | 2 |\n",
        "| a | b |\n| 1 | 2 |\n",
    ],
    ids=["too few", "too many", "broken in two", "short line of dashes", "no line of dashes"],
)
def test_a_crooked_table_is_noticed(text: str) -> None:
    assert crooked_rows(text) != []


def test_a_straight_table_and_one_in_a_code_block_are_not() -> None:
    assert crooked_rows("| a | b |\n|---|--:|\n| 1 \\| 2 | 3 |\n") == []
    assert crooked_rows("```\n| a | b |\n```\n") == []
