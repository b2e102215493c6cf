"""The vision tower's forms beside transformers and a stock ONNX Runtime, in one run.

    python -m tests.bench.compare_towers [--folder FOLDER] [--rounds N] [--threads N]
        [--patches N ...] [--engines NAME ...]

The tower of the 2B and 4B models (24 blocks, width 1024) with random weights; one image a pass.
Every size is measured in rounds, all engines within a round, every other round backwards; while
one engine is measured the others stand still. A ratio is the median of the ratios within each
round, against transformers in float32 with sdpa.

The ceiling is what NumPy's float32 product reaches in the same run; int8 instructions multiply
four times as many numbers, AVX2's twice as many.

Not measured: decoding images, preprocessing, the wire. Run it on a quiet machine. The last line of
standard output is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from kernels import library
from tests.bench.figures import paired_ratio
from tests.bench.machine import warn_unless_quiet
from tests.bench.processes import EngineFailed, EngineProcess
from tests.support import full_size_tower

BASE = "transformers"
ENGINES = ("fast", "exact", "portable", BASE, "transformers-bf16")
PATCHES = (432, 1024, 3072, 4096)
FOLDER = Path(__file__).parents[2] / ".cache" / "tandem-bench" / "tower-2b"

BLOCKS, WIDTH = 24, 1024
PRODUCT_MACS = 302e6  # of a patch, in all products
INT8_FACTORS = {"avx512": 4, "avxvnni": 4, "avx2": 2}
PEAK_SIZE, PEAK_RUNS = 1024, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerFigure:
    """One engine at one size; `share` is of the ceiling of its own arithmetic."""

    patches: int
    engine: str
    ratio: float | None
    patches_per_s: float
    gmac_per_s: float
    share: float


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    console = Console(width=120, stderr=True)
    if not (arguments.folder / "vision" / "config.json").is_file():
        console.print(f"writing random weights to {arguments.folder}")
        full_size_tower.build(arguments.folder)
    with tempfile.TemporaryDirectory() as logs, ExitStack() as stack:
        engines = _start(arguments, Path(logs), stack, console)
        found, peaks, others = [], [], []
        for patches in arguments.patches:
            rounds = []
            for number in range(arguments.rounds):
                others.append(warn_unless_quiet())
                peaks.append(float32_peak())
                names = list(engines) if number % 2 == 0 else list(reversed(engines))
                rounds.append({name: _seconds(engines[name], patches) for name in names})
                console.print(f"{patches} patches, seconds: {rounds[-1]}")
            found += figures(patches, rounds, statistics.median(peaks))
        descriptions = {name: engine.description for name, engine in engines.items()}
    _show(found)
    measured = {
        "instruction_set": library.instruction_set(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "float32_gmac_per_s": statistics.median(peaks) / 1e9,
        "other_cores": max(others),
        "engines": descriptions,
        "figures": [asdict(figure) for figure in found],
    }
    sys.stdout.write(json.dumps(measured) + "\n")
    return 0


def figures(patches: int, rounds: Sequence[Mapping[str, float]], peak: float) -> list[TowerFigure]:
    """What the seconds of all rounds say of each engine.

    Args:
        patches: Of the image.
        rounds: Seconds by engine, a round each.
        peak: Float32 multiplications and additions per second.
    """
    macs = patches * (PRODUCT_MACS + 2 * BLOCKS * WIDTH * patches)
    found = []
    for engine in rounds[0]:
        seconds = statistics.median(measured[engine] for measured in rounds)
        factor = INT8_FACTORS.get(library.instruction_set(), 1) if engine == "fast" else 1
        found.append(
            TowerFigure(
                patches=patches,
                engine=engine,
                ratio=paired_ratio(rounds, slower=BASE, faster=engine),
                patches_per_s=patches / seconds,
                gmac_per_s=macs / seconds / 1e9,
                share=macs / seconds / (peak * factor),
            )
        )
    return found


def float32_peak() -> float:
    """Multiplications and additions per second of NumPy's float32 product on all cores."""
    left = np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE)).astype(np.float32)
    best = float("inf")
    for _ in range(PEAK_RUNS):
        began = time.perf_counter()
        np.matmul(left, left)
        best = min(best, time.perf_counter() - began)
    return PEAK_SIZE**3 / best


def _start(
    arguments: argparse.Namespace, logs: Path, stack: ExitStack, console: Console
) -> dict[str, EngineProcess]:
    """Starts the engines one after another and warms each up; one that fails is left out."""
    started = {}
    for name in arguments.engines:
        driver = [sys.executable, "-m", "tests.bench.drivers.tower", name]
        command = [*driver, str(arguments.folder), str(arguments.threads)]
        try:
            engine = EngineProcess(name, command, logs / f"{name}.log")
        except EngineFailed as error:
            console.print(f"{name} is left out: {error}")
            continue
        stack.callback(engine.stop)
        _seconds(engine, min(arguments.patches))
        started[name] = engine
    return started


def _seconds(engine: EngineProcess, patches: int) -> float:
    (seconds,) = engine.ask({"do": "prefill", "tokens": patches})
    return seconds


def _show(found: Sequence[TowerFigure]) -> None:
    table = Table(title="patches per second", title_justify="left")
    for column in ("patches", "engine", "ratio", "patches/s", "GMAC/s", "share"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for figure in found:
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}x"
        cells = (f"{figure.patches_per_s:.0f}", f"{figure.gmac_per_s:.0f}", f"{figure.share:.0%}")
        table.add_row(str(figure.patches), figure.engine, ratio, *cells)
    Console(width=100).print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Vision towers side by side.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patches", type=int, nargs="+", default=list(PATCHES))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
