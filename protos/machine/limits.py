"""Memory and cores that this process may use: the machine's, or its control groups' if less."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NO_LIMIT = 1 << 60  # bytes; version 1 writes "none" as a number near 2^63


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What there is.

    Attributes:
        free_bytes: Memory that may still be taken.
        bounded: Whether a control group bounds it rather than the machine.
        cores: That may run at once; a share of one counts as one.
    """

    free_bytes: int
    bounded: bool
    cores: int


def limits(root: Path = Path("/")) -> Limits:
    """Reads /proc and the control groups of this process, of either version.

    Args:
        root: Where /proc and /sys are.
    """
    machine = _available(root)
    rooms = [room for room in map(_room, _groups(root, "memory")) if room is not None]
    free = min([machine, *rooms])
    quotas = [quota for quota in map(_quota, _groups(root, "cpu")) if quota is not None]
    usable = len(os.sched_getaffinity(0))
    cores = max(1, min([usable, *(math.ceil(quota) for quota in quotas)]))
    return Limits(free_bytes=free, bounded=free < machine, cores=cores)


def _available(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups this process is in, each with those above it.

    Within a container the paths that /proc tells may lie outside of what is mounted: the group
    that is mounted as the root then is the container's.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = PurePosixPath(path.lstrip("/"))
        yield from (top / folder for folder in (inner, *inner.parents))


def _room(group: Path) -> int | None:
    """Bytes that a group's processes may still take; None: no limit.

    Its page cache counts as used, but goes when memory is wanted: what a bundle's files took when
    they were copied there must not look like a lack.
    """
    for limit_name, used_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(group / limit_name), _number(group / used_name)
        if limit is not None and used is not None and limit < NO_LIMIT:
            return max(0, limit - used + _field(group / "memory.stat", cache_name))
    return None


def _quota(group: Path) -> float | None:
    """Cores; None: no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us = _number(group / "cpu.cfs_quota_us")
    period_us = _number(group / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us else None


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _field(file: Path, name: str) -> int:
    try:
        fields = dict(line.split() for line in file.read_text().splitlines())
        return int(fields.get(name, 0))
    except (OSError, ValueError):
        return 0
