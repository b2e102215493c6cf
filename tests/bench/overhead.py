"""What scheduling, sampling and gRPC add to a step of eight sequences.

    python -m tests.bench.overhead BUNDLE [--threads N] [--rounds N] [--flag=--NAME=VALUE ...]

Eight streams of 256-token prompts decode in a real decoder process over gRPC, greedily and with
the model's usual sampling. The process notes when each run of the graph began and ended and makes
every other run twice, the second time with nothing else to do (tests/bench/timed_decoder.py). So:

    between   time from the end of a run to the beginning of the next, over the whole step:
              what the engine's thread does itself
    whole     whole step less the run with nothing beside it, over the whole step: also what the
              answers' sending takes away from the run

The ceiling is 0 %. Not measured: prefill, logprobs, grammars. The last line of standard output is
one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from protos.tandem.v1 import decoder_pb2
from tests.bench.drivers.protocol import random_ids
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.bench.streams import GREEDY, Streams
from tests.support.decoder_process import DecoderProcess

VARIABLE = "TANDEM_BENCH_TIMES"  # names the file tests/bench/timed_decoder.py writes
Run = tuple[float, float, float | None, int]  # began, ended, seconds when repeated, rows

BATCH, CONTEXT, TOKENS = 8, 256, 64
SKIPPED = 4  # runs after the last prompt
GOAL = 0.03
FLAGS = (
    "--max-sequences=8",
    "--max-context=1024",
    "--kv-memory-mib=16384",
    "--speculation=off",
)
SAMPLED = decoder_pb2.SamplingParams(temperature=0.7, top_p=0.8, top_k=20)
KINDS = {"greedy": GREEDY, "sampled": SAMPLED}


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Overhead around a step.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--flag", action="append", default=[])
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    flags = [f"--threads={arguments.threads}", *FLAGS, *arguments.flag]
    with tempfile.TemporaryDirectory() as folder:
        runs = _record(arguments.bundle, Path(folder), flags, arguments.rounds)
    spans = steady_spans(runs, BATCH)
    kinds = list(KINDS)
    shares = {
        kind: overhead([span for index, span in enumerate(spans) if kinds[index % 2] == kind])
        for kind in kinds
    }
    found = {
        **{f"{kind}_{name}": share[name] for kind, share in shares.items() for name in share},
        "goal": GOAL,
        "most_other_cores_in_use": others,
        **surroundings(),
    }
    for kind, share in shares.items():
        print(
            f"{kind}: whole {share['whole_share']:.1%}, between {share['between_share']:.1%} of a"
            f" step of {share['step_ms']:.1f} ms (goal {GOAL:.0%}, ceiling 0 %)"
        )
    cells = [found["date"], found["commit"]]
    for kind in kinds:
        cells += [f"{shares[kind]['whole_share']:.1%}", f"{shares[kind]['between_share']:.1%}"]
        cells.append(f"{shares[kind]['step_ms']:.1f} ms")
    print(f"| {' | '.join(str(cell) for cell in cells)} |")
    print(json.dumps(found, sort_keys=True))
    return 0


def _record(bundle: Path, folder: Path, flags: Sequence[str], rounds: int) -> list[Run]:
    times = folder / "times.jsonl"
    decoder = DecoderProcess(
        bundle,
        folder / "decoder.log",
        flags,
        module="tests.bench.timed_decoder",
        environment={**os.environ, VARIABLE: str(times)},
    )
    prompts = [random_ids(CONTEXT) for _ in range(BATCH)]
    with decoder, Streams(decoder.port) as streams:
        for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
            for sampling in KINDS.values():
                held = [streams.start(ids, CONTEXT * 2, sampling) for ids in prompts]
                streams.await_tokens(held, 1)
                streams.await_tokens(held, max(len(s.arrivals) for s in held) + TOKENS)
                streams.cancel(held)
    return [tuple(json.loads(line)) for line in times.read_text().splitlines()]


def steady_spans(runs: Sequence[Run], batch: int) -> list[list[Run]]:
    """Unbroken rows of runs that decode `batch` sequences and nothing else, the first ones cut."""
    spans: list[list[Run]] = [[]]
    for run in runs:
        if run[3] == batch:
            spans[-1].append(run)
        elif spans[-1]:
            spans.append([])
    # A span is shorter than this only by chance: between two prompts that end close together.
    return [span[SKIPPED:] for span in spans if len(span) > TOKENS // 2]


def overhead(spans: Sequence[Sequence[Run]]) -> dict[str, float]:
    """Shares of a step and its milliseconds, medians over neighbouring pairs of runs."""
    steps, between, whole = [], [], []
    for span in spans:
        for single, double in zip(span, span[1:], strict=False):
            if single[2] is None and double[2] is not None:
                step = double[0] - single[0]
                steps.append(step)
                between.append((double[0] - single[1]) / step)
                whole.append((step - double[2]) / step)
    return {
        "whole_share": round(statistics.median(whole), 4),
        "between_share": round(statistics.median(between), 4),
        "step_ms": round(1e3 * statistics.median(steps), 2),
    }


if __name__ == "__main__":
    sys.exit(main())
