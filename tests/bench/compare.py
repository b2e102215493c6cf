"""Tandem's decoder beside llama.cpp, OpenVINO GenAI and onnxruntime-genai, in one run.

    python -m tests.bench.compare BUNDLE --size 2b [--peers FOLDER] [--rounds N]
        [--figures NAME ...] [--engines NAME ...] [--tandem-flag=--NAME=VALUE ...]

Prefill of 1024 tokens and decoding at 1, 8 and 16 sequences, each engine with the same shapes,
4-bit weights and two threads; `python -m tests.bench.peers` makes the peers' environments and
models. The regime is the engines' own speed: prompts are random token ids no cache has seen,
tokens are greedy and never end. Every figure is measured in rounds, all engines within a round,
every other round backwards; while one engine is measured the others stand still. Tandem is
measured through its process and gRPC, the peers in process: what Tandem's users get, against
the least the peers can cost.

The ceiling is the memory bandwidth measured in the same run over the bytes a token reads;
prefill has no such simple bound, arithmetic limits it.

Not measured: sampling, latency under load (tests/bench/stalls.py), quality. Run it on a quiet
machine. The last line of standard output is one JSON object; results/compare.md keeps the numbers.
"""

import argparse
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from decoder_service.model.sessions import choose_graph
from protos.bundle.manifest import Bundle
from tests.bench.bandwidth import ceilings, read_bandwidth
from tests.bench.figures import FIGURES, OURS, SHAPES, Comparison, Figure, compare
from tests.bench.machine import warn_unless_quiet
from tests.bench.peers import places
from tests.bench.processes import EngineFailed, EngineProcess
from tests.bench.report import show, to_json
from tests.bench.serve_full_size import surroundings

STEPS = 12  # timed steps of one measurement of decoding
# Drafts are off: what greedy random weights say repeats itself as no answer does.
TANDEM_FLAGS = (
    "--max-sequences=16",
    "--max-context=3072",
    "--kv-memory-mib=16384",
    "--speculation=off",
)


def main() -> int:
    """Measures and prints; returns the exit code."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = Console(width=140, stderr=True)
    figures = [FIGURES[name] for name in arguments.figures]
    here = surroundings()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(console, Path(folder), arguments.threads)
        stack.callback(bench.stop)
        bench.start(places.commands(arguments.peers, arguments.size), arguments.engines, arguments)
        with _progress(console) as progress:
            task = progress.add_task("", total=len(figures) * (arguments.rounds + 1))
            found = []
            for figure in figures:
                progress.update(task, description=figure.name)
                found.append(
                    bench.measure(figure, arguments.rounds, lambda: progress.advance(task))
                )
    graph = choose_graph(Bundle.open(arguments.bundle), "auto", "auto")
    bandwidth = statistics.median(bench.bandwidths)
    limits = ceilings(SHAPES[arguments.size], graph, bandwidth)
    show(found, limits, bench.descriptions, f"{_machine(here)} | {arguments.size}")
    whole = {**to_json(found, limits, bench.descriptions, arguments.size), **here}
    whole["bandwidth_gb_per_s"] = round(bandwidth / 1e9, 2)
    whole["most_other_cores_in_use"] = max(bench.other_cores)
    print(json.dumps(whole))
    return 0


class Bench:
    """The running engines, and what they are asked."""

    def __init__(self, console: Console, logs: Path, threads: int) -> None:
        self.bandwidths: list[float] = []
        self.other_cores: list[float] = []
        self.descriptions: dict[str, str] = {}
        self._console = console
        self._logs = logs
        self._threads = threads
        self._engines: dict[str, EngineProcess] = {}

    def start(
        self,
        peers: Mapping[str, Sequence[str]],
        wanted: Sequence[str],
        arguments: argparse.Namespace,
    ) -> None:
        """Starts the wanted engines one after another; one that is missing is said so."""
        own = [
            sys.executable,
            "-m",
            "tests.bench.drivers.tandem",
            str(arguments.bundle),
            str(self._threads),
            str(self._logs / "decoder.log"),
            *TANDEM_FLAGS,
            *arguments.tandem_flag,
        ]
        for name in wanted:
            command = own if name == OURS else [*peers[name], str(self._threads)]
            began = time.perf_counter()
            try:
                places.check(command)
                engine = EngineProcess(name, command, self._logs / f"{name}.log")
            except (places.PeerMissing, EngineFailed) as error:
                self._say(f"{name} is left out: {error}")
                continue
            self._engines[name] = engine
            self.descriptions[name] = engine.description
            self._say(f"{name} in {time.perf_counter() - began:.0f} s: {engine.description}")

    def stop(self) -> None:
        """Ends all engines."""
        for engine in self._engines.values():
            engine.stop()

    def measure(self, figure: Figure, rounds: int, on_round: Callable[[], object]) -> Comparison:
        """Measures one figure in rounds, all engines in each."""
        errors: dict[str, str] = {}
        measured: list[dict[str, float]] = []
        names = list(self._engines)
        self._prepare(figure, names, errors)
        on_round()
        for number in range(rounds):
            self._survey()
            seconds: dict[str, float] = {}
            for name in names if number % 2 == 0 else reversed(names):
                if name not in errors:
                    self._attempt(name, figure, seconds, errors)
            measured.append(seconds)
            speeds = {n: f"{figure.tokens_per_measurement / s:.1f}" for n, s in seconds.items()}
            self._say(f"{figure.name} tok/s: {speeds}")
            on_round()
        for name in names:
            self._ask(name, {"do": "drop"}, errors)
        return compare(figure, measured, errors)

    def _survey(self) -> None:
        """Looks at the machine while all engines stand still."""
        self.other_cores.append(warn_unless_quiet())
        self.bandwidths.append(read_bandwidth(self._threads))

    def _prepare(self, figure: Figure, names: Sequence[str], errors: dict[str, str]) -> None:
        """Brings every engine to the state the figure starts from; a prefill warms up."""
        if figure.batch:
            command = {"do": "hold", "batch": figure.batch, "context": figure.context}
        else:
            command = {"do": "prefill", "tokens": figure.context // 4}
        for name in names:
            self._ask(name, command, errors)

    def _attempt(
        self, name: str, figure: Figure, seconds: dict[str, float], errors: dict[str, str]
    ) -> None:
        if figure.batch:
            answer = self._ask(name, {"do": "decode", "tokens": STEPS}, errors)
        else:
            answer = self._ask(name, {"do": "prefill", "tokens": figure.context}, errors)
        if answer:
            seconds[name] = statistics.mean(answer)

    def _ask(
        self, name: str, command: Mapping[str, object], errors: dict[str, str]
    ) -> list[float] | None:
        try:
            return self._engines[name].ask(command)
        except EngineFailed as error:
            errors.setdefault(name, str(error))
            self._say(str(error))
            return None

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tandem beside other engines.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", choices=sorted(SHAPES), required=True)
    parser.add_argument("--peers", type=Path, default=places.FOLDER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--figures", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    usual = [OURS, *places.PEERS]
    known = [*usual, *places.MODELS_ON_DEMAND]
    parser.add_argument("--engines", nargs="+", choices=known, default=usual)
    parser.add_argument("--tandem-flag", action="append", default=[])
    return parser.parse_args()


def _machine(here: Mapping[str, object]) -> str:
    """The first cells of a row of results/compare.md."""
    return f"{here['date']} | {here['commit']} | {here['cores']} cores, {here['cpu']}"


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


if __name__ == "__main__":
    sys.exit(main())
