"""What running streams notice of a long prompt, and what the prompt notices of them.

    python -m tests.bench.stalls BUNDLE [--threads N] [--rounds N] [--flag=--NAME=VALUE ...]

Eight greedy streams of 256-token prompts decode in a real decoder process over gRPC, first
undisturbed, then while a prompt of 1024 tokens no cache has seen is prefilled beside them: the
99th percentile of the time between two tokens of a stream, and the prompt's time to its first
token beside its time alone. Every round measures all of it. The ceiling of the first ratio is 1:
a prompt that costs the streams nothing.

Not measured: several long prompts at once, features that arrive late. Run it on a quiet machine;
the last line of standard output is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import track

from tests.bench.drivers.protocol import MOST_HELD_TOKENS, random_ids
from tests.bench.figures import gaps, percentile
from tests.bench.machine import warn_unless_quiet
from tests.bench.serve_full_size import surroundings
from tests.bench.streams import Stream, Streams
from tests.support.decoder_process import DecoderProcess

BATCH, CONTEXT, PROMPT = 8, 256, 1024
QUIET_TOKENS = 32  # of each stream in the undisturbed window
SETTLING_TOKENS = 3
SHARE = 0.99
FLAGS = (
    "--max-sequences=10",
    "--max-context=2048",
    "--kv-memory-mib=16384",
    "--speculation=off",
)
GAP_GOAL, PREFILL_GOAL = 2.0, 1.25


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time between tokens while a prompt arrives.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flag", action="append", default=[])
    arguments = parser.parse_args()
    others = warn_unless_quiet()
    flags = [f"--threads={arguments.threads}", *FLAGS, *arguments.flag]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        log = Path(folder) / "decoder.log"
        decoder = stack.enter_context(DecoderProcess(arguments.bundle, log, flags))
        window = Window(stack.enter_context(Streams(decoder.port)))
        window.prefill_alone()  # warms up
        window.forget()
        progress = Console(stderr=True)
        for _ in track(range(arguments.rounds), "rounds", console=progress):
            window.measure()
    found = {**window.report(), "most_other_cores_in_use": others, **surroundings()}
    show(found)
    print(json.dumps(found, sort_keys=True))
    return 0


class Window:
    """Measures rounds and keeps what they gave, seconds."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # The same prompts every round: a decoder that remembers them starts sooner.
        self._prompts = [random_ids(CONTEXT) for _ in range(BATCH)]
        self.forget()

    def forget(self) -> None:
        """Drops what was measured so far."""
        self._alone: list[float] = []
        self._beside: list[float] = []
        self._quiet_gaps: list[float] = []
        self._busy_gaps: list[float] = []

    def measure(self) -> None:
        """One round: the prompt alone, the streams alone, both together."""
        self.prefill_alone()
        held = [self._streams.start(ids, MOST_HELD_TOKENS) for ids in self._prompts]
        self._streams.await_tokens(held, 1)
        self._streams.await_tokens(held, _longest(held) + SETTLING_TOKENS)
        began = time.perf_counter()
        self._streams.await_tokens(held, _longest(held) + QUIET_TOKENS)
        self._quiet_gaps += _all_gaps(held, began, time.perf_counter())
        prompt = self._prefill()
        self._beside.append(prompt.first_token_s)
        self._busy_gaps += _all_gaps(held, prompt.began, prompt.arrivals[0])
        self._streams.cancel(held)

    def prefill_alone(self) -> None:
        """The prompt with nothing else running."""
        self._alone.append(self._prefill().first_token_s)

    def report(self) -> dict[str, object]:
        """Ratios first."""
        quiet = percentile(self._quiet_gaps, SHARE)
        busy = percentile(self._busy_gaps, SHARE)
        pairs = zip(self._beside, self._alone, strict=True)
        return {
            "gap_ratio": round(busy / quiet, 3),
            "gap_goal": GAP_GOAL,
            "prefill_ratio": round(statistics.median(a / b for a, b in pairs), 3),
            "prefill_goal": PREFILL_GOAL,
            "p99_gap_ms_undisturbed": round(1e3 * quiet, 1),
            "p99_gap_ms_disturbed": round(1e3 * busy, 1),
            "median_gap_ms_undisturbed": round(1e3 * statistics.median(self._quiet_gaps), 1),
            "median_gap_ms_disturbed": round(1e3 * statistics.median(self._busy_gaps), 1),
            "prefill_s_alone": round(statistics.median(self._alone), 3),
            "prefill_s_beside": round(statistics.median(self._beside), 3),
            "gaps_undisturbed": len(self._quiet_gaps),
            "gaps_disturbed": len(self._busy_gaps),
            "rounds": len(self._beside),
        }

    def _prefill(self) -> Stream:
        prompt = self._streams.start(random_ids(PROMPT), max_tokens=1)
        self._streams.wait(lambda: prompt.is_done, [prompt])
        return prompt


def _longest(streams: Sequence[Stream]) -> int:
    return max(len(stream.arrivals) for stream in streams)


def _all_gaps(streams: Sequence[Stream], first: float, last: float) -> list[float]:
    return [gap for stream in streams for gap in gaps(stream.arrivals, first, last)]


def show(found: dict[str, object]) -> None:
    """Prints the ratios, what they are made of, and the row of results/stalls.md."""
    print(
        f"p99 between tokens {found['gap_ratio']}x undisturbed (goal {GAP_GOAL}x, ceiling 1x):"
        f" {found['p99_gap_ms_disturbed']} against {found['p99_gap_ms_undisturbed']} ms"
    )
    print(
        f"prefill of {PROMPT} tokens beside {BATCH} streams {found['prefill_ratio']}x alone"
        f" (goal {PREFILL_GOAL}x): {found['prefill_s_beside']} against"
        f" {found['prefill_s_alone']} s"
    )
    names = ("date", "commit", "gap_ratio", "p99_gap_ms_undisturbed", "p99_gap_ms_disturbed",
             "prefill_ratio", "prefill_s_alone", "prefill_s_beside")  # fmt: skip
    print(f"| {' | '.join(str(found[name]) for name in names)} |")


if __name__ == "__main__":
    sys.exit(main())
