"""What the processes of a stack hold: memory, descriptors, threads. Linux only (/proc)."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from protos.machine import processes

KIB = 1024
OURS = ("gateway", "decoder", "front", "replica", "boxed workers", "decoder's children")
_MEMORY = {  # of /proc/PID/smaps_rollup; shared pages are divided among those that share them
    "Rss": "rss",
    "Pss": "pss",
    "Pss_Anon": "anonymous",
    "Pss_Shmem": "shared",
    "Private_Clean": "private",
    "Private_Dirty": "private",
    "Swap": "anonymous",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What processes of one role hold together; memory in bytes.

    Attributes:
        anonymous: Heaps and stacks, in memory or swapped: what a leak of memory makes grow.
        shared: Pages of shared memory, as of Ray's object store.
    """

    processes: int = 0
    rss: int = 0
    pss: int = 0
    private: int = 0
    anonymous: int = 0
    shared: int = 0
    descriptors: int = 0
    threads: int = 0
    children: int = 0

    def __add__(self, other: "Holding") -> "Holding":
        one, two = asdict(self), asdict(other)
        return Holding(**{name: one[name] + two[name] for name in one})


QUANTITIES = tuple(field.name for field in fields(Holding))


def census(services: Mapping[str, int]) -> dict[str, Holding]:
    """What each role's processes hold now.

    Args:
        services: Process id by role, of services; whatever is below them is counted by its own
            role: Ray's own processes get roles that begin with "Ray".
    """
    found: dict[str, Holding] = {}
    for pid, role in _family(services):
        holding = _holding(pid)
        if holding is not None:
            found[role] = found.get(role, Holding()) + holding
    return found


def _family(services: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    known = {pid: role for role, pid in services.items()}
    for pid in known:
        yield pid, known[pid]
        for child in processes.descendants(pid):
            if child not in known:
                yield child, _role(_title(child), known[pid])


def _role(title: str, service: str) -> str:
    if service != "front":
        return f"{service}'s children"
    if "vision_service.box.worker" in title:
        return "boxed workers"
    if title.startswith("ray::ServeReplica"):
        return "replica"
    for name in ("gcs_server", "raylet", "ServeController"):
        if name in title.split(" ")[0]:
            return f"Ray: {name}"
    return "Ray: others"


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _holding(pid: int) -> Holding | None:
    """None for a process that has ended."""
    folder = Path(f"/proc/{pid}")
    values: dict[str, int] = {}
    try:
        for line in (folder / "smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            if name in _MEMORY:
                key = _MEMORY[name]
                values[key] = values.get(key, 0) + int(value.split()[0]) * KIB
        tasks = os.listdir(folder / "task")
        children = sum(
            len((folder / "task" / task / "children").read_text().split()) for task in tasks
        )
        descriptors = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    return Holding(
        processes=1, descriptors=descriptors, threads=len(tasks), children=children, **values
    )


def shared_memory_bytes() -> int:
    """What lies in /dev/shm, of this stack and of others on the machine."""
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize
