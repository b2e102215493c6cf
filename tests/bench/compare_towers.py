"""The vision tower's forms beside transformers, OpenVINO, ONNX Runtime and llama.cpp, in one run.

    python -m tests.bench.compare_towers [--folder FOLDER] [--rounds N] [--threads N]
        [--patches N ...] [--engines NAME ...] [--peers FOLDER] [--least-cosine C]

The tower of the 2B and 4B models (24 blocks, width 1024) with random weights; one image a pass, the
same drawn one for all. Before anything is timed each engine's features are compared with those of
transformers in float32, token by token; one that points elsewhere is left out (a level's mean
cosine below C, 0.99: INT8 is above 0.999 where it is done well). Then every size is
measured in rounds, all engines within a round, every other round backwards; while one engine is
measured the others stand still. A ratio is the median of the ratios within each round.

Engines: our forms (fast, exact), and of others

    transformers, transformers-bf16  its model with sdpa
    portable, onnxruntime            the portable graph in a stock ONNX Runtime, as a replica opens
                                     it and with the runtime's own defaults
    openvino-f32, openvino           float32 throughout, and in the precision it chooses itself
                                     (bfloat16 where the processor multiplies it)
    openvino-int8                    quantized by NNCF with SmoothQuant on drawn images
    llamacpp-f16, llamacpp-q8        llama.cpp's Qwen3-VL graph

The last two rows' are made by `python -m tests.bench.peers tower FOLDER`, each in an environment of
its own; without them they are left out. The peers' inputs that depend on the grid are made
beforehand; our forms and transformers compute theirs within the time.

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
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from kernels import library
from tests.bench.drivers.towers import FloatArray
from tests.bench.machine import warn_unless_quiet
from tests.bench.peers import places
from tests.bench.processes import EngineFailed, EngineProcess
from tests.bench.towers import engines, inputs
from tests.bench.towers.figures import BestPeer, Cosines, TowerFigure, best_peer, cosines, figures
from tests.support import full_size_tower

PATCHES = (432, 1024, 3072, 4096)
FOLDER = Path(__file__).parents[2] / ".cache" / "tandem-bench" / "tower-2b"
PEAK_SIZE, PEAK_RUNS = 1024, 5
LEAST_COSINE = 0.99


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    console = Console(width=120, stderr=True)
    if not (arguments.folder / "vision" / "config.json").is_file():
        console.print(f"writing random weights to {arguments.folder}")
        full_size_tower.build(arguments.folder)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(arguments, Path(folder), stack, console)
        likenesses = bench.compare()
        found, best = [], []
        for patches in arguments.patches:
            rounds = bench.measure(patches)
            found += figures(patches, rounds, statistics.median(bench.peaks), likenesses[patches])
            best.append(best_peer(patches, rounds))
    _show(found, best)
    measured = {
        "instruction_set": library.instruction_set(),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "float32_gmac_per_s": statistics.median(bench.peaks) / 1e9,
        "other_cores": max(bench.others),
        "engines": {name: engine.description for name, engine in bench.engines.items()},
        "left_out": bench.left_out,
        "figures": [asdict(figure) for figure in found],
        "best_peers": [asdict(peer) for peer in best if peer is not None],
    }
    sys.stdout.write(json.dumps(measured) + "\n")
    return 0


class Bench:
    """The running engines, and what they are asked.

    Attributes:
        engines: Those that run and agree with transformers.
        left_out: Why others do not, by name.
        peaks: The machine's float32 products, multiplications per second, each round.
        others: Cores that other processes used, each round.
    """

    def __init__(
        self, arguments: argparse.Namespace, folder: Path, stack: ExitStack, console: Console
    ) -> None:
        self.engines: dict[str, EngineProcess] = {}
        self.left_out: dict[str, str] = {}
        self.peaks: list[float] = []
        self.others: list[float] = []
        self._arguments, self._folder, self._console = arguments, folder, console
        inputs.write_measured(arguments.folder, arguments.patches, folder)
        for name in arguments.engines:
            try:
                self.engines[name] = self._started(name)
            except (places.PeerMissing, EngineFailed) as error:
                self._leave_out(name, str(error))
            else:
                stack.callback(self.engines[name].stop)
                console.print(f"{name}: {self.engines[name].description}", highlight=False)

    def compare(self) -> Mapping[int, Mapping[str, Cosines]]:
        """Each engine's cosines with the reference by patches, which also warms it up."""
        found: dict[int, dict[str, Cosines]] = {}
        for patches in self._arguments.patches:
            wanted = self._features(engines.BASE, patches)
            found[patches] = {}
            for name in list(self.engines):
                made = self._features(name, patches)
                if made is not None and wanted is not None:
                    found[patches][name] = cosines(made, wanted)
                    if found[patches][name].mean < self._arguments.least_cosine:
                        self._leave_out(name, f"{patches} patches: {found[patches][name]}")
        return found

    def measure(self, patches: int) -> list[dict[str, float]]:
        """Seconds of a pass by engine, a round each."""
        rounds: list[dict[str, float]] = []
        for number in range(self._arguments.rounds):
            self.others.append(warn_unless_quiet())
            self.peaks.append(float32_peak())
            names = list(self.engines)
            seconds = {}
            for name in names if number % 2 == 0 else reversed(names):
                command = {"do": "prefill", "tokens": patches}
                (seconds[name],) = self.engines[name].ask(command)
            rounds.append(seconds)
            told = {name: round(taken, 3) for name, taken in seconds.items()}
            self._console.print(f"{patches} patches, seconds: {told}", highlight=False)
        return rounds

    def _started(self, name: str) -> EngineProcess:
        command = engines.command(
            name,
            tower=self._arguments.folder,
            inputs=self._folder,
            peers=self._arguments.peers,
            threads=self._arguments.threads,
        )
        return EngineProcess(name, command, self._folder / f"{name}.log")

    def _features(self, name: str, patches: int) -> FloatArray | None:
        """None from an engine that does not run, or not any more."""
        file = self._folder / "features.npy"
        if name not in self.engines:
            return None
        try:
            self.engines[name].ask({"do": "write", "tokens": patches, "file": str(file)})
        except EngineFailed as error:
            self._leave_out(name, str(error))
            return None
        features: FloatArray = np.load(file)
        return features

    def _leave_out(self, name: str, why: str) -> None:
        self.engines.pop(name, None)
        self.left_out[name] = why
        self._console.print(f"{name} is left out: {why}", highlight=False, markup=False)


def float32_peak() -> float:
    """Multiplications and additions per second of NumPy's float32 product on all cores."""
    left = np.random.default_rng(0).standard_normal((PEAK_SIZE, PEAK_SIZE)).astype(np.float32)
    best = float("inf")
    for _ in range(PEAK_RUNS):
        began = time.perf_counter()
        np.matmul(left, left)
        best = min(best, time.perf_counter() - began)
    return PEAK_SIZE**3 / best


def _show(found: Sequence[TowerFigure], best: Sequence[BestPeer | None]) -> None:
    table = Table(title="patches per second", title_justify="left")
    for column in ("patches", "engine", "ratio", "patches/s", "GMAC/s", "share", "cosine", "1 %"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for figure in found:
        ratio = "-" if figure.ratio is None else f"{figure.ratio:.2f}x"
        alike = figure.cosines
        words = ("-", "-") if alike is None else (f"{alike.mean:.5f}", f"{alike.low:.5f}")
        cells = (f"{figure.patches_per_s:.0f}", f"{figure.gmac_per_s:.0f}", f"{figure.share:.0%}")
        table.add_row(str(figure.patches), figure.engine, ratio, *cells, *words)
    console = Console(width=100)
    console.print(table)
    for peer in best:
        if peer is not None:
            console.print(f"{peer.patches}: fast is {peer.ratio:.2f}x the best peer, {peer.engine}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Vision towers side by side.")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--peers", type=Path, default=places.FOLDER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--least-cosine", type=float, default=LEAST_COSINE)
    parser.add_argument(
        "--patches", type=int, nargs="+", default=list(PATCHES), choices=list(inputs.GRIDS)
    )
    parser.add_argument(
        "--engines", nargs="+", choices=engines.ENGINES, default=list(engines.ENGINES)
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
