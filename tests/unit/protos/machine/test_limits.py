"""Limits of control groups of both versions, in folders laid out as the kernel does."""

from pathlib import Path

import pytest

from protos.machine.limits import limits

GIB = 1024**3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with 8 GiB free and no control groups."""
    write(tmp_path, "proc/meminfo", f"MemTotal: 9 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    return tmp_path


def write(root: Path, name: str, text: str | int) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{text}\n")


def test_without_groups_the_machine_bounds(root: Path) -> None:
    found = limits(root)
    assert (found.free_bytes, found.bounded) == (8 * GIB, False)
    assert found.cores >= 1


def test_a_group_above_the_own_one_bounds_and_its_page_cache_does_not_count(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/outer/inner")
    write(root, "sys/fs/cgroup/outer/inner/memory.max", "max")
    write(root, "sys/fs/cgroup/outer/inner/memory.current", 5)
    write(root, "sys/fs/cgroup/outer/memory.max", 4 * GIB)
    write(root, "sys/fs/cgroup/outer/memory.current", 3 * GIB)
    write(root, "sys/fs/cgroup/outer/memory.stat", f"anon 1\ninactive_file {GIB}")
    found = limits(root)
    assert (found.free_bytes, found.bounded) == (2 * GIB, True)


def test_in_a_container_the_mounted_group_is_its_own(root: Path) -> None:
    write(root, "proc/self/cgroup", "0::/seen/from/outside")
    write(root, "sys/fs/cgroup/memory.max", GIB)
    write(root, "sys/fs/cgroup/memory.current", 0)
    write(root, "sys/fs/cgroup/cpu.max", "50000 100000")
    found = limits(root)
    assert (found.free_bytes, found.cores) == (GIB, 1)


def test_groups_of_version_1_bound_as_well(root: Path) -> None:
    write(root, "proc/self/cgroup", "4:memory:/job\n1:cpu,cpuacct:/")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)  # none
    write(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", 1)
    write(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", 2 * GIB)
    write(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", GIB)
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", 100000)
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", 100000)
    found = limits(root)
    assert (found.free_bytes, found.cores) == (GIB, 1)


def test_a_control_group_bounds_what_is_available(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8 kB\n")
    assert limits(tmp_path).free_bytes == 8192
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert limits(tmp_path).free_bytes == 8192
    (group / "memory.max").write_text("5000\n")
    assert limits(tmp_path).free_bytes == 4000


def test_this_machine_has_memory() -> None:
    assert limits().free_bytes > 0
