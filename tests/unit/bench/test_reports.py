"""What the smaller benchmarks make of what they recorded."""

from pathlib import Path

import pytest

from protos.bundle.manifest import DecoderGraph
from tests.bench.bandwidth import ceilings
from tests.bench.figures import FIGURES, SHAPES
from tests.bench.overhead import SKIPPED, TOKENS, Run, overhead, steady_spans
from tests.bench.peers import places


def alternating(count: int, rows: int = 8) -> list[Run]:
    """Steps of 100 ms: runs of 96 ms, 94 when nothing else happens; every second made twice."""
    runs: list[Run] = []
    clock = 0.0
    for number in range(count):
        repeated = 0.094 if number % 2 else None
        runs.append((clock, clock + 0.096, repeated, rows))
        clock += 0.1 + (repeated or 0.0)
    return runs


def test_overhead_is_the_step_less_the_undisturbed_run() -> None:
    found = overhead([alternating(20)])
    assert found["step_ms"] == pytest.approx(100)
    assert found["between_share"] == pytest.approx(0.04)
    assert found["whole_share"] == pytest.approx(0.06)


def test_steady_spans_are_cut_at_prefill_and_at_other_batches() -> None:
    prefill: Run = (0.0, 1.0, None, -1)
    runs = [*alternating(5, rows=3), *alternating(TOKENS), prefill, *alternating(TOKENS), prefill]
    assert [len(span) for span in steady_spans(runs, 8)] == [TOKENS - SKIPPED] * 2


def test_ceilings_are_bandwidth_over_the_bytes_of_a_step() -> None:
    graph = DecoderGraph(file="f", precision="int4", block_size=128, accuracy_level=4)
    shape = SHAPES["2b"]
    found = ceilings(shape, graph, 20e9)
    weights = shape.weight_count * 4.25 / 8
    assert set(found) == {name for name, figure in FIGURES.items() if figure.batch}
    assert found["decode-8-256"] == pytest.approx(8 * 20e9 / (weights + 8 * shape.kv_bytes(256, 4)))


def test_a_missing_peer_is_told_how_to_be_made(tmp_path: Path) -> None:
    command = places.commands(tmp_path, "2b")["openvino"]
    with pytest.raises(places.PeerMissing, match="peers setup"):
        places.check(command)
    python = places.python(tmp_path, "openvino")
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(places.PeerMissing, match="peers convert"):
        places.check(command)
    places.model(tmp_path, "2b", "openvino").mkdir(parents=True)
    places.check(command)
