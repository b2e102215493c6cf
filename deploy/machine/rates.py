"""How fast this machine reads memory and multiplies, measured in a second or two.

    python -m deploy.machine.rates CORES

It runs in a process of its own, where NumPy's products can be told to use one thread each. Times
are of the threads' processor, not of the clock: what other processes take meanwhile is left out.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

READ_BYTES = 384 * 1024**2  # of all threads; beyond the caches of most machines
RUNS = 3
ROWS, SIDE = 256, 1024  # of a product, whose operands stay in a core's cache
ROUNDS = 8
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The best of a few runs on all cores.

    Attributes:
        read_bytes_per_s: Memory read by summing large arrays.
        products_per_s: Float32 multiplications with additions, by NumPy's product.
    """

    read_bytes_per_s: float
    products_per_s: float


def measured(cores: int) -> Rates | None:
    """Rates of `cores` threads at once; None where they cannot be measured."""
    command = [sys.executable, "-P", "-m", "deploy.machine.rates", str(cores)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **ONE_THREAD},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        return Rates(**json.loads(done.stdout))
    except (subprocess.SubprocessError, OSError, ValueError, TypeError):
        return None


def here(
    cores: int,
    *,
    clock: Callable[[], float] = time.thread_time,
    read_bytes: int = READ_BYTES,
) -> Rates:
    """The same in this process.

    Args:
        cores: Threads at once.
        clock: Each thread's own.
        read_bytes: Size of what all of them read.
    """
    with ThreadPoolExecutor(cores) as pool:  # NumPy lets go of the interpreter meanwhile
        read = list(pool.map(lambda _: _best(_reading(read_bytes // cores), clock), range(cores)))
        multiplied = list(pool.map(lambda _: _best(_multiplying(), clock), range(cores)))
    products = ROUNDS * ROWS * SIDE * SIDE
    return Rates(
        read_bytes_per_s=sum(read_bytes / cores / seconds for seconds in read),
        products_per_s=sum(products / seconds for seconds in multiplied),
    )


def _reading(size: int) -> Callable[[], object]:
    numbers = np.ones(size // 8, dtype=np.int64)
    return lambda: np.sum(numbers)


def _multiplying() -> Callable[[], object]:
    rows = np.ones((ROWS, SIDE), dtype=np.float32)
    weights = np.ones((SIDE, SIDE), dtype=np.float32)
    return lambda: [np.matmul(rows, weights) for _ in range(ROUNDS)]


def _best(work: Callable[[], object], clock: Callable[[], float]) -> float:
    seconds = []
    for _ in range(RUNS):
        began = clock()
        work()
        seconds.append(clock() - began)
    return max(min(seconds), 1e-9)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(here(int(sys.argv[1])))))
