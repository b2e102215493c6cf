"""A decoder process that writes down when each of its runs began and ended.

    TANDEM_BENCH_TIMES=FILE python -m tests.bench.timed_decoder [FLAGS of decoder_service]

Every other run is made twice (a run may be repeated): the second time nothing else happens in
the process, its clients having been answered, so that it shows what the run itself takes. FILE
gets one JSON list [began, ended, repeated_s, rows] a run; `repeated_s` is null for a run that was
made once, `rows` is the number of decoding sequences, or -1 where others are computed too.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from decoder_service.__main__ import main as serve
from decoder_service.model.batch import Bound, FloatArray, Segments
from decoder_service.model.flat_runner import FlatRunner
from tests.bench.overhead import VARIABLE, Run


def time_runs(runs: list[Run]) -> None:
    """Makes every `FlatRunner` (INT4 bundles have one) add its runs to `runs`."""
    plain = FlatRunner.bind

    def bind(self: FlatRunner, batch: Sequence[Segments]) -> Bound:
        return _TimedRun(lambda: plain(self, batch), _decoding(batch), runs)

    FlatRunner.bind = bind  # type: ignore[method-assign, assignment]


def _decoding(batch: Sequence[Segments]) -> int:
    """Sequences of a run that decodes and does nothing else; -1 of another."""
    (part, *others) = batch
    return len(part.past) if not others and len(part.past) == len(part.embeds) else -1


class _TimedRun:
    """Binds and runs, and notes how long it took."""

    def __init__(self, bind: Callable[[], Bound], rows: int, runs: list[Run]) -> None:
        self._bind = bind
        self._began = time.perf_counter()
        self._bound = bind()
        self._rows = rows
        self._runs = runs

    def run(self) -> FloatArray:
        """See `batch.Bound.run`."""
        logits = self._bound.run()
        ended = time.perf_counter()
        repeated = None
        if self._rows > 0 and len(self._runs) % 2:
            again = time.perf_counter()
            logits = self._bind().run()
            repeated = time.perf_counter() - again
        self._runs.append((self._began, ended, repeated, self._rows))
        return logits


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
