"""Spans on their way to a collector, and collectors that fail."""

import logging
import time

import grpc
import pytest

from protos.process import trace_export
from protos.process.settings import SettingError
from protos.process.trace_export import SpanQueue, check_endpoint, otlp_sink, to_otlp
from protos.process.tracing import Kind, Span
from tests.support.collector import collecting, told


def span(name: str = "chat") -> Span:
    made = Span(lambda _: None, name, Kind.SERVER, trace_id=5, parent_id=6, start_ns=10)
    made.end(end_ns=20)
    return made


def test_a_collector_has_every_span_when_the_process_ends() -> None:
    made = span()
    made.note({"a": 1, "b": 0.5, "c": "text", "d": True, "e": ("x", "y")})
    made.failure = "QUEUE_FULL"
    with collecting() as collector, otlp_sink(collector.endpoint, "tandem-vision") as sink:
        assert sink is not None
        for _ in range(300):
            sink(made)
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < 5.0
    assert len(collector.spans) == 300 and len(collector.requests) == 3
    (of_service,) = collector.requests[0].resource_spans
    assert told(of_service.resource) == {"service.name": "tandem-vision"}
    first = collector.spans[0]
    assert (first.name, first.kind, first.status.code) == ("chat", 2, 2)
    assert (first.trace_id, first.parent_span_id) == (b"\0" * 15 + b"\5", b"\0" * 7 + b"\6")
    assert first.span_id == made.span_id.to_bytes(8, "big")
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (10, 20)
    expected = {"a": 1, "b": 0.5, "c": "text", "d": True, "e": ("x", "y")}
    assert told(first) == {**expected, "error.type": "QUEUE_FULL"}


def test_a_collector_that_refuses_is_asked_again_and_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(trace_export, "PAUSE_S", 0.01)
    with collecting() as collector:
        collector.failures = [grpc.StatusCode.UNAVAILABLE] * 2
        with otlp_sink(collector.endpoint, "x") as sink:
            assert sink is not None
            sink(span())
            while not collector.spans:
                time.sleep(0.01)
    said = [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]
    assert said == [
        "the collector at trace_endpoint answers UNAVAILABLE",
        "the collector at trace_endpoint takes spans again",
    ]


def test_no_collector_costs_spans_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    begun_s = time.monotonic()
    with otlp_sink("http://127.0.0.1:1", "x") as sink:
        assert sink is not None
        sink(span())
    assert time.monotonic() - begun_s < 7.0
    assert "1 spans of traces were dropped" in caplog.text


def test_a_full_queue_drops_and_counts_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "MAX_QUEUED_SPANS", 3)
    sent: list[object] = []
    queue = SpanQueue("x", sent.append)
    for _ in range(5):
        queue.add(span())
    assert queue.dropped == 2
    with queue.sending():
        pass
    assert len(sent) == 1


def test_a_bug_in_sending_ends_nothing_but_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    def send(_: object) -> None:
        raise ValueError("bug")

    queue = SpanQueue("x", send)
    with queue.sending():
        queue.add(span())
    assert queue.dropped == 1 and "bug" in caplog.text


def test_nothing_is_queued_without_an_endpoint() -> None:
    with otlp_sink(None, "x") as sink:
        assert sink is None


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:4317", "https://collector:4317/"])
def test_urls_of_collectors(endpoint: str) -> None:
    check_endpoint(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    ["", "localhost:4317", "http://localhost", "ftp://a:1", "http://a:1/v1/traces", "http://a:x"]
    + ["http://user:secret@a:1", "http://[::1:4317"],
)
def test_what_is_no_url_of_a_collector_is_refused(endpoint: str) -> None:
    with pytest.raises(SettingError, match="trace_endpoint"):
        check_endpoint(endpoint)


def test_a_batch_of_nothing_is_a_message_all_the_same() -> None:
    assert to_otlp("x", []).resource_spans[0].resource.attributes[0].key == "service.name"
