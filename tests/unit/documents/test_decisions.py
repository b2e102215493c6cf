"""DECISIONS.md has one entry per decision, all of one shape."""

import re

import pytest

from tests.support.markdown import ROOT

PARTS = ["What", "Why", "Measured", "Rejected"]
_DATES = re.compile(r"\d{4}-\d\d-\d\d(?:, changed \d{4}-\d\d-\d\d)*")

ENTRIES = re.split(r"^## ", (ROOT / "DECISIONS.md").read_text(), flags=re.MULTILINE)[1:]


def test_entries_are_numbered_in_order() -> None:
    numbers = [entry.partition(". ")[0] for entry in ENTRIES]
    assert numbers == [str(number) for number in range(1, len(ENTRIES) + 1)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition(".")[0])
def test_an_entry_has_a_date_and_then_its_parts_in_order(entry: str) -> None:
    _, date, *paragraphs = entry.strip().split("\n\n")
    assert _DATES.fullmatch(date), date
    named = [part for text in paragraphs for part in re.findall(r"^\*\*(\w+)\.\*\*", text)]
    assert named == [part for part in PARTS if part in named]
    assert named[0] == "What"
    assert {"Why", "Rejected"} & set(named)
