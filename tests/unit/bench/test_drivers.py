"""The lines a benchmark and its drivers exchange, with drivers made for the test."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.processes import EngineFailed, EngineProcess
from tests.support.waiting import wait_until

DRIVER = """
import sys
from tests.bench.drivers import protocol

class Engine:
    def describe(self):
        print("a library's chatter")
        return "an engine"
    def prefill(self, tokens):
        return tokens / 8
    def hold(self, batch, context):
        self.held = batch
    def decode(self, tokens):
        if not self.held:
            raise RuntimeError("nothing is held\\nreally")
        return [0.25] * tokens
    def drop(self):
        self.held = 0

def load():
    if sys.argv[1:] == ["broken"]:
        raise OSError("no model")
    if sys.argv[1:] == ["dead"]:
        sys.exit(3)
    return Engine()

protocol.serve(load)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    started = start(tmp_path)
    yield started
    started.stop()


def start(folder: Path, *arguments: str) -> EngineProcess:
    script = folder / "driver.py"
    script.write_text(DRIVER)
    return EngineProcess("fake", [sys.executable, str(script), *arguments], folder / "log")


def test_seconds_come_back_whatever_a_library_prints(engine: EngineProcess) -> None:
    assert engine.description == "an engine"
    assert engine.ask({"do": "prefill", "tokens": 16}) == [2.0]
    assert engine.ask({"do": "hold", "batch": 2, "context": 8}) == []
    assert engine.ask({"do": "decode", "tokens": 3}) == [0.25, 0.25, 0.25]


def test_a_failing_command_is_one_line_and_the_driver_goes_on(engine: EngineProcess) -> None:
    engine.ask({"do": "drop"})
    with pytest.raises(EngineFailed, match="fake: RuntimeError: nothing is held really"):
        engine.ask({"do": "decode", "tokens": 1})
    assert engine.ask({"do": "prefill", "tokens": 8}) == [1.0]


def test_an_unknown_command_is_refused(engine: EngineProcess) -> None:
    with pytest.raises(EngineFailed, match="do is 'sing'"):
        engine.ask({"do": "sing"})


def test_an_idle_engine_stands_still(engine: EngineProcess) -> None:
    stat = Path(f"/proc/{engine.pid}/stat")
    # The kernel halts it a moment after the signal.
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", what="the halt")


def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="fake: OSError: no model"):
        start(tmp_path, "broken")


def test_an_engine_that_dies_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="fake ended"):
        start(tmp_path, "dead")
