"""Chaos needs a machine on which hosts can be made."""

import os
import shutil
from pathlib import Path

import pytest

from tests.chaos.hosts import Network
from tests.chaos.spaces import NoSpaces

TIMEOUT_S = 600.0
PROGRAMS = ("ip", "unshare", "nsenter", "mount")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def hosts_can_be_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where they cannot, with the reason. Root is expected to be able to."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no hosts without {', '.join(missing)} (packages iproute2, util-linux)")
    try:
        with Network(tmp_path_factory.mktemp("probe")) as network:
            network.host("probe")
    except NoSpaces as error:
        if _may_administrate():
            raise
        pytest.skip(f"no hosts in namespaces for this user on this machine: {error}")


@pytest.fixture(scope="module")
def network_folder(hosts_can_be_made: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where hosts write."""
    return tmp_path_factory.mktemp("hosts")


def _may_administrate() -> bool:
    """Whether we are root with all that root may, as in continuous integration."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    return os.geteuid() == 0 and bool(capabilities >> _CAP_SYS_ADMIN & 1)


_CAP_SYS_ADMIN = 21  # linux/capability.h
