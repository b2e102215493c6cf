"""The table at the end of a run, from reports made by hand."""

from typing import Any, Literal

import pytest

from tests.support.file_times import by_file


def report(nodeid: str, when: Literal["setup", "call"], seconds: float) -> pytest.TestReport:
    about: dict[str, Any] = {"nodeid": nodeid, "location": ("", None, ""), "keywords": {}}
    return pytest.TestReport(**about, outcome="passed", longrepr=None, when=when, duration=seconds)


def test_a_file_costs_what_its_tests_and_their_fixtures_do_and_the_slowest_comes_first() -> None:
    found = by_file(
        [
            report("a.py::test_one", "setup", 0.5),
            report("a.py::test_one", "call", 1.0),
            report("b.py::test_two[x::y]", "setup", 4.0),
            report("b.py::test_two[x::y]", "call", 1.0),
            report("a.py::test_three", "call", 2.0),
        ]
    )
    assert [(name, cost.tests, cost.seconds) for name, cost in found] == [
        ("b.py", 1, 5.0),
        ("a.py", 2, 3.5),
    ]
