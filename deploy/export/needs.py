"""What an export takes of this machine, said before it starts; too little disk is refused."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.decoder import graphs
from deploy.export.errors import ExportError
from deploy.export.options import ExportOptions
from deploy.export.quality import is_measured
from deploy.export.vision import writer as tower_writer
from protos.machine.limits import limits

MIB, GIB = 1024**2, 1024**3
SPARE_BYTES = 64 * MIB  # of disk, for files that are small
LIBRARIES_BYTES = 400 * MIB  # of memory: torch, onnx and the interpreter
# Read and written, a second: of the runs in tests/bench/results/export.md, on two busy cores.
BYTES_PER_S = 80e6
START_S = 10.0  # of the libraries' imports and the checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """About what an export takes.

    Attributes:
        disk_bytes: Of all that it writes, the bundle and what it removes again.
        memory_bytes: At its peak.
        work_bytes: Of the checkpoint that are read and of the bundle that are written; what the
            progress of all stages counts.
    """

    disk_bytes: int
    memory_bytes: int
    work_bytes: int

    @property
    def seconds(self) -> float:
        """How long a machine of two cores takes."""
        return START_S + self.work_bytes / BYTES_PER_S


def need(checkpoint: Checkpoint, options: ExportOptions) -> Need:
    """Reckons from the shapes in the checkpoint's headers; reads no weights."""
    vision = checkpoint.with_prefix(checkpoint.family.tensors.vision)
    settings = sum(len(data) for data in checkpoint.processor_files.values())
    vision_bytes = sum(tensor.size for tensor in vision.values())
    tower = tower_writer.expected_bytes(vision)
    graph = graphs.written_bytes(checkpoint, options)
    ours = graph if graphs.has_kernel_graphs(checkpoint, options) else 0
    table = checkpoint.embeddings.size
    disk = settings + vision_bytes + tower + table + graph + ours + SPARE_BYTES
    work = settings + vision_bytes + tower + table + graphs.expected_bytes(checkpoint, options)
    if is_measured(checkpoint, options):  # a float32 graph lies there for the while
        exact = graphs.exact(options)
        disk += graphs.written_bytes(checkpoint, exact)
        work += graphs.expected_bytes(checkpoint, exact)
    largest = max(4 * math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
    return Need(
        disk_bytes=disk,
        memory_bytes=graph + largest + LIBRARIES_BYTES,
        work_bytes=work + ours,
    )


def described(needed: Need, folder: Path, *, there: int) -> str:
    """One line: disk, memory, time.

    Args:
        needed: What the whole export takes.
        folder: Where the bundle is made; it exists.
        there: Bytes of an earlier export of the same that lie there already.

    Raises:
        ExportError: the disk has no room for the rest.
    """
    free = shutil.disk_usage(folder).free
    wanted = max(0, needed.disk_bytes - there)
    if wanted > free:
        raise ExportError(
            f"{folder} has {_size(free)} free, the export needs {_size(wanted)} there:"
            " make room, or choose a bundle on another disk"
        )
    memory = limits().free_bytes
    little = "" if needed.memory_bytes <= memory else ", which is not enough"
    left = needed.seconds * (wanted / needed.disk_bytes)
    return (
        f"needs {_size(wanted)} of disk ({_size(free)} free) and {_size(needed.memory_bytes)} of"
        f" memory ({_size(memory)} free{little}); takes about {_duration(left)}"
    )


def _size(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def _duration(seconds: float) -> str:
    return f"{max(seconds, 1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
