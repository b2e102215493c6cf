"""What a process tells Prometheus, read back by Prometheus' own parsers."""

import urllib.request
from collections.abc import Callable

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from protos.process.metrics import TierMetrics, seconds_of
from protos.process.request_log import recording
from protos.process.server import PortTaken, bind
from protos.wire.errors import InvalidRequest, Overloaded, Reason


@pytest.fixture
def metrics() -> TierMetrics:
    return TierMetrics("vision")


def value(metrics: TierMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_request_counts_when_it_ends(metrics: TierMetrics) -> None:
    with recording("vision", metrics=metrics) as record:
        record.ended("ok")
        assert value(metrics, "tandem:vision_request_seconds_count") == 0
    assert value(metrics, "tandem:vision_request_seconds_count") == 1
    assert value(metrics, "tandem:vision_request_failures_total", reason="QUEUE_FULL") is None


@pytest.mark.parametrize("error", [Overloaded("full"), InvalidRequest("no", param="x")])
def test_a_failure_counts_by_its_reason(metrics: TierMetrics, error: Exception) -> None:
    with pytest.raises(type(error)), recording("vision", metrics=metrics):
        raise error
    reason = Reason.QUEUE_FULL if isinstance(error, Overloaded) else Reason.INVALID_PARAMETER
    assert value(metrics, "tandem:vision_request_failures_total", reason=reason.value) == 1


def test_what_a_client_says_is_no_label(metrics: TierMetrics) -> None:
    for number in range(50):
        with recording("vision", f"id-{number}", metrics=metrics, door=f"d{number}") as record:
            record.note(word=f"w{number}")
            record.ended("ok")
    text, _ = metrics.exposition("")
    assert b"id-" not in text and b"w49" not in text and b"d49" not in text


@pytest.mark.parametrize(
    ("accept", "parse"),
    [("", plain), ("application/openmetrics-text; version=1.0.0", openmetrics)],
)
def test_the_text_is_what_the_scraper_asks_for(
    metrics: TierMetrics, accept: str, parse: Callable[[str], object]
) -> None:
    metrics.gauge("tandem:vision_depth", "How deep.", lambda: 7.0)
    text, media_type = metrics.exposition(accept)
    families = {family.name: family for family in parse(text.decode())}  # type: ignore[attr-defined]
    assert families["tandem:vision_depth"].samples[0].value == 7.0
    assert ("openmetrics" in media_type) == bool(accept)


def test_the_port_of_its_own_answers_without_a_key(metrics: TierMetrics) -> None:
    with metrics.serving("127.0.0.1", 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            assert b"tandem:vision_request_seconds" in answer.read()
    bind("127.0.0.1", port or 0).close()  # free again


def test_no_port_is_opened_unless_asked(metrics: TierMetrics) -> None:
    with metrics.serving("127.0.0.1", None) as port:
        assert port is None


def test_a_taken_port_is_said_in_our_words(metrics: TierMetrics) -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(PortTaken, match=str(port)), metrics.serving("127.0.0.1", port):
        pass
    taken.close()


def test_times_of_the_line_are_seconds() -> None:
    assert seconds_of({"queue_ms": 1500.0}, "queue_ms") == 1.5
    assert seconds_of({}, "queue_ms") is None
