"""Says at the end of a run where its time went: a pytest plugin, named in tests/conftest.py."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

SHOWN = 10


@dataclass(slots=True)
class FileTime:
    """What one file cost: its tests with all that was set up for them first."""

    tests: int = 0
    seconds: float = 0.0


def by_file(reports: Iterable[pytest.TestReport]) -> list[tuple[str, FileTime]]:
    """The files of some reports, the slowest first.

    A shared fixture counts for the file that asked for it first.
    """
    found: defaultdict[str, FileTime] = defaultdict(FileTime)
    for report in reports:
        cost = found[report.nodeid.partition("::")[0]]
        cost.seconds += report.duration
        cost.tests += report.when == "call"
    return sorted(found.items(), key=lambda entry: -entry[1].seconds)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Writes the table; in a run on several processes their times add up to more than the run's."""
    reports = [
        report
        for outcome in terminalreporter.stats.values()
        for report in outcome
        if isinstance(report, pytest.TestReport)
    ]
    slowest = by_file(reports)[:SHOWN]
    if not slowest:
        return
    terminalreporter.section("slowest files")
    for file, cost in slowest:
        terminalreporter.write_line(f"{cost.seconds:7.1f} s {cost.tests:5d} tests  {file}")
