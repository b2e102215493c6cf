"""Processor seconds of the processes around the models: what each takes of a request, and of what.

Gateway, client and the vision tier beside its replicas. A replica's time is its passes', and a
decoder's its steps', which are measured by the clock.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from deploy.stack.local import LocalStack
from protos.machine.processes import descendants, name, processor_s

FloatArray = npt.NDArray[np.float64]

# What a request's processor seconds grow with, as the planner names them; first, time alone.
FIELDS = ("idle", "request_s", "image_s", "patch_s", "token_s")
REPLICA = "ray::ServeRepli"  # as the kernel has its name


def processor_seconds(stack: LocalStack) -> dict[str, float]:
    """What each kind of process has had so far; this process is the client.

    Replicas and the processes in which they decode files are left out.
    """
    front, gateway = stack.pid("vision"), stack.pid("gateway")
    tier = {front, *descendants(front)}
    for replica in [pid for pid in tier if name(pid) == REPLICA]:
        tier -= {replica, *descendants(replica)}
    return {
        "gateway": sum(map(processor_s, (gateway, *descendants(gateway)))),
        "front": sum(map(processor_s, tier)),
        "client": processor_s(os.getpid()),
    }


class Usage:
    """Learns from stretches of known work what each kind of process takes of it.

    Args:
        read: Processor seconds so far, by process.
    """

    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self._read = read
        self._work: list[tuple[float, ...]] = []
        self._took: list[dict[str, float]] = []

    @contextmanager
    def during(
        self, *, requests: int = 0, images: int = 0, patches: int = 0, tokens: int = 0
    ) -> Iterator[None]:
        """Measures a block in which so much is asked and answered, of all processes together."""
        before, began = self._read(), time.perf_counter()
        yield
        seconds, after = time.perf_counter() - began, self._read()
        self._work.append((seconds, requests, images, patches, tokens))
        self._took.append({process: after[process] - before[process] for process in after})

    def costs(self) -> dict[str, dict[str, float]]:
        """By process, the figures that say best what it took; none is negative."""
        work = np.array(self._work)
        return {
            process: dict(
                zip(FIELDS, _fitted(work, [one[process] for one in self._took]), strict=True)
            )
            for process in self._took[0]
        }


def _fitted(work: FloatArray, seconds: list[float]) -> list[float]:
    """Least squares; what would be negative is left out, the worst first.

    Args:
        work: float64 [N, 5], see FIELDS.
        seconds: Of N stretches.
    """
    taken = np.array(seconds)
    # All columns at a like size: a patch is little, and there are many.
    scale = np.maximum(work.max(axis=0), 1e-9)
    found, used = np.zeros(len(FIELDS)), list(range(len(FIELDS)))
    while used:
        some = np.linalg.lstsq(work[:, used] / scale[used], taken, rcond=None)[0]
        if (some >= 0).all():
            found[used] = some / scale[used]
            break
        del used[int(some.argmin())]
    return [float(f"{value:.6g}") for value in found]
