"""Which tests share a process when pytest runs on several (`-n 2`): a pytest plugin.

A file's tests stay together, since they share what the file sets up. So do all tests of the real
services: one process starts the stacks, and there are never more of them than in a plain run.
"""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

SERVICES = ("tests/e2e/", "tests/chaos/", "tests/parity/test_services.py")


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc] # a class of xdist, untyped
    """Hands out whole files, and the tests of real services as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """What runs in one process with this test: tests of equal scope do."""
    return SERVICES[0] if nodeid.startswith(SERVICES) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)  # asked by xdist alone
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FilesTogether:
    """Puts our scheduler in the place of xdist's."""
    return FilesTogether(config, log)
