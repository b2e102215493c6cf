"""Marks every test by its folder."""

import os
from pathlib import Path

import pytest

# Tests start processes beside channels and servers of their own, also from threads; gRPC's hooks of
# fork then crash the child now and then. Read when gRPC is imported, which the plugins do.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

ROOT = Path(__file__).parent
SERVICES_TIMEOUT_S = 300  # of a test of real services: busy cores take a minute to start them

pytest_plugins = [
    "tests.support.stack",  # the real services, shared by the tests
    "tests.support.parallel",
    "tests.support.file_times",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(ROOT).parts[0]
        item.add_marker(getattr(pytest.mark, folder))
        if "stacks" in item.fixturenames or folder == "e2e":  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.timeout(SERVICES_TIMEOUT_S))
