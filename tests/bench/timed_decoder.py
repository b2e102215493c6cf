"""A decoder process that writes down when each of its runs began and ended.

    TANDEM_BENCH_TIMES=FILE python -m tests.bench.timed_decoder [FLAGS of decoder_service]

Every other run is made twice (a run may be repeated): the second time nothing else happens in
the process, its clients having been answered, so that it shows what the run itself takes. FILE
gets one JSON list [began, ended, repeated_s, rows] a run; `repeated_s` is null for a run that was
made once, `rows` is the number of decoding sequences, or -1 with a prefill lane.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from decoder_service.__main__ import main as serve
from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane
from decoder_service.model.flat_runner import FlatRunner
from tests.bench.overhead import VARIABLE, Run


def time_runs(runs: list[Run]) -> None:
    """Makes every `FlatRunner` (INT4 bundles have one) add its runs to `runs`."""
    plain = FlatRunner.run

    def timed(
        self: FlatRunner,
        prefill: PrefillLane | None,
        decode: DecodeLane | None,
        on_start: Callable[[], None] = lambda: None,
    ) -> LaneLogits:
        began = time.perf_counter()
        logits = plain(self, prefill, decode, on_start)
        ended = time.perf_counter()
        rows = -1 if prefill is not None or decode is None else len(decode.past)
        repeated = None
        if rows > 0 and len(runs) % 2:
            again = time.perf_counter()
            logits = plain(self, prefill, decode)
            repeated = time.perf_counter() - again
        runs.append((began, ended, repeated, rows))
        return logits

    FlatRunner.run = timed  # type: ignore[method-assign]


def main() -> int:
    """Serves as `decoder_service` does, then writes the file."""
    runs: list[Run] = []
    time_runs(runs)
    code = serve()
    with Path(os.environ[VARIABLE]).open("w") as stream:
        stream.writelines(json.dumps(run) + "\n" for run in runs)
    return code


if __name__ == "__main__":
    sys.exit(main())
