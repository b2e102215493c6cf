"""Whether the machine is as quiet as a measurement wants it."""

import os
import time
from pathlib import Path

MOST_OTHER_CORES = 0.15  # beyond this a figure says more of the neighbours than of the engines


def cores_in_use(seconds: float = 0.5) -> float:
    """Cores' worth of work other processes do while this one sleeps."""
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def private_bytes(pid: int) -> int:
    """Memory only this process uses (USS)."""
    return _rollup(pid, ("Private_Clean", "Private_Dirty", "Private_Hugetlb"))


def proportional_bytes(pid: int) -> int:
    """Memory this process uses, shared pages divided among their users (PSS)."""
    return _rollup(pid, ("Pss",))


def _rollup(pid: int, names: tuple[str, ...]) -> int:
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        if name in names:
            total += int(value.split()[0]) * 1024
    return total


def _busy_ticks() -> int:
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields)
    return user + nice + system + irq + softirq + steal
