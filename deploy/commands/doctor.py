"""`tandem doctor`: what this machine offers, and what is missing."""

import os
import platform
import resource
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.commands.extras import installed, required
from deploy.machine.bundle import examine_bundle, spared
from deploy.machine.finding import Finding
from deploy.machine.forms import instruction_set
from deploy.machine.rates import measured
from deploy.stack.paths import cache_dir
from deploy.stack.ports import LOOPBACK, Ports, is_free
from protos.machine.limits import limits

GIB = 1024**3

SERVING = ("gateway", "vision", "decoder")
PARTS = (*SERVING, "export")
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "i8mm")
SHARED_MEMORY_BYTES = 256 * 1024**2  # Ray keeps its object store there
OPEN_FILES = 1024


def examine(bundle: Path | None = None) -> list[Finding]:
    """Looks at Python, machine, packages, ports and disk; changes nothing.

    Args:
        bundle: Look for what serving this one needs, too, and only for that.
    """
    machine = [_python(), _cores(), *_memory(), _open_files()]
    if bundle is None:
        return [*machine, *_packages(PARTS), _ports(), _disk()]
    found = instruction_set()
    needed = _packages(SERVING, without=spared("onnx" if found else "torch"))
    about = examine_bundle(
        bundle, limits=limits(), instruction_set=found, installed=installed, rates=measured
    )
    return [*machine, *needed, _ports(), _disk(), *about]


def show(console: Console, findings: list[Finding]) -> None:
    """Prints the findings as a table."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.ok else "[red]!![/red]"
        table.add_row(mark, finding.name, finding.found)
    console.print(table)


def _python() -> Finding:
    version = platform.python_version_tuple()
    return Finding(
        name="python",
        found=f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        ok=(3, 11) <= (int(version[0]), int(version[1])),
    )


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0))
    flags = _cpu_flags(Path("/proc/cpuinfo"))
    found = [flag for flag in CPU_FLAGS if flag in flags]
    return Finding(
        name="cores", found=f"{usable} usable; {' '.join(found) or 'no SIMD flags known'}"
    )


def _cpu_flags(cpuinfo: Path) -> set[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    wanted = [line for line in lines if line.startswith(("flags", "Features"))]
    return set(wanted[0].partition(":")[2].split()) if wanted else set()


def _memory() -> list[Finding]:
    info = meminfo(Path("/proc/meminfo"))
    shared = shutil.disk_usage("/dev/shm")
    return [
        Finding(
            name="memory",
            found=f"{info['MemTotal'] / GIB:.1f} GiB, {info['MemAvailable'] / GIB:.1f} GiB free",
            ok=info["MemAvailable"] > GIB,
        ),
        Finding(
            name="/dev/shm",
            found=f"{shared.free / GIB:.1f} GiB free",
            ok=shared.free > SHARED_MEMORY_BYTES,
        ),
    ]


def meminfo(path: Path) -> Mapping[str, int]:
    """Fields of /proc/meminfo in bytes."""
    pairs = (line.split(":", 1) for line in path.read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding(name="open files", found=f"at most {soft}", ok=soft >= OPEN_FILES)


def _packages(parts: Sequence[str], without: frozenset[str] = frozenset()) -> list[Finding]:
    findings = []
    for part in parts:
        versions = {name: installed(name) for name in required(part) if name not in without}
        missing = [name for name, version in versions.items() if version is None]
        found = ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
        findings.append(Finding(name=part, found=found, ok=not missing))
    return findings


def _ports() -> Finding:
    taken = [str(port) for port in Ports().named().values() if not is_free(LOOPBACK, port)]
    return Finding(
        name="ports",
        found=f"in use: {', '.join(taken)}" if taken else "the default ports are free",
        ok=not taken,
    )


def _disk() -> Finding:
    folder = cache_dir(os.environ)
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    return Finding(name="disk", found=f"{free / GIB:.1f} GiB free for {folder}", ok=free > GIB)
