"""Whether the machine is as quiet as a measurement wants it."""

import os
import sys
import time
from pathlib import Path

MOST_OTHER_CORES = 0.15  # beyond this a figure says more of the neighbours than of the engines


def cores_in_use(seconds: float = 0.5) -> tuple[float, str]:
    """Cores' worth of work other processes do while this one sleeps, and the busiest's command."""
    before, each = _busy_ticks(), _ticks_by_process()
    time.sleep(seconds)
    cores = (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    after = _ticks_by_process()
    busiest = max(after, key=lambda pid: after[pid] - each.get(pid, after[pid]))
    try:
        command = Path(f"/proc/{busiest}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = "a process that has ended"
    return cores, command[:100]


def warn_unless_quiet() -> float:
    """Cores in use by others, with a line on stderr if they spoil a measurement."""
    cores, busiest = cores_in_use()
    if cores > MOST_OTHER_CORES:
        sys.stderr.write(
            f"other processes use {cores:.2f} cores, these figures are worth little: {busiest}\n"
        )
    return round(cores, 2)


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


def _ticks_by_process() -> dict[int, int]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            found[int(folder.name)] = int(fields[11]) + int(fields[12])
    return found
