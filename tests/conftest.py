"""Marks every test by its folder."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent

pytest_plugins = [
    "tests.support.stack",  # the real services, shared by the tests
    "tests.support.parallel",
    "tests.support.file_times",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT).parts[0]
        item.add_marker(getattr(pytest.mark, folder))
