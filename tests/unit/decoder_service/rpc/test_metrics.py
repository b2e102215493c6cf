"""What sequences leave in a decoder's metrics."""

import pytest

from decoder_service.cache.memory import MemoryPlan
from decoder_service.engine.engine import Load
from decoder_service.rpc.metrics import DecoderMetrics
from protos.process.request_log import recording
from protos.wire.errors import Overloaded

PLAN = MemoryPlan(
    max_sequences=4, max_context=100, kv_tokens=200, token_bytes=10, budget_bytes=2000
)


def value(metrics: DecoderMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"tandem:decoder_{name}", labels)


def test_a_sequence_counts_its_tokens_at_its_end() -> None:
    metrics = DecoderMetrics(Load, PLAN)
    with recording("decoder", metrics=metrics) as record:
        record.note(prompt_tokens=40, cached_tokens=32, completion_tokens=7, queue_ms=250.0)
        record.ended("stop")
    counts = [value(metrics, f"{name}_tokens_total") for name in ("prompt", "cached", "generation")]
    assert counts == [40, 32, 7]
    assert value(metrics, "queue_seconds_sum") == pytest.approx(0.25)


def test_a_refused_sequence_counts_its_reason_and_no_time_in_the_queue() -> None:
    metrics = DecoderMetrics(Load, PLAN)
    with pytest.raises(Overloaded), recording("decoder", metrics=metrics):
        raise Overloaded("full")
    assert value(metrics, "request_failures_total", reason="QUEUE_FULL") == 1
    assert value(metrics, "queue_seconds_count") == 0


def test_the_engine_is_read_when_it_is_asked_for() -> None:
    now = Load()
    metrics = DecoderMetrics(lambda: now, PLAN)
    assert value(metrics, "sequences_running") == 0
    now = Load(
        running_count=3,
        waiting_count=2,
        kv_token_count=50,
        cached_token_count=9,
        preemption_count=1,
    )
    names = ("sequences_running", "sequences_waiting", "kv_tokens", "kv_usage")
    assert [value(metrics, name) for name in names] == [3, 2, 50, 0.25]
    assert value(metrics, "cached_prefix_tokens") == 9
    assert value(metrics, "preemptions") == 1
    assert value(metrics, "slots") == 4
