"""Histograms of the event loop read like the library's."""

import re

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from gateway.histograms import LoopHistogram
from protos.process import tracing
from protos.process.metrics import TOKEN_COUNTS

SEEN = (0.0, 1.0, 1.5, 2.0, 499.0, 1e9)


def shown(registry: CollectorRegistry) -> str:
    """All that is told, but for the moment a series was made at."""
    return re.sub(r"(_created\S*) .*", r"\1", generate_latest(registry).decode())


@pytest.mark.parametrize("labels", [{}, {"model_name": "a"}])
def test_it_tells_what_the_librarys_tells(labels: dict[str, str]) -> None:
    theirs, ours = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    library = Histogram("v:sizes", "Sizes.", list(labels), buckets=TOKEN_COUNTS, registry=theirs)
    histogram = LoopHistogram("v:sizes", "Sizes.", TOKEN_COUNTS, labels)
    ours.register(histogram)
    for value in SEEN:
        (library.labels(*labels.values()) if labels else library).observe(value)
        histogram.observe(value)
    assert shown(ours) == shown(theirs)


def test_a_value_that_was_seen_often_is_observed_once() -> None:
    registry = CollectorRegistry(auto_describe=True)
    histogram = LoopHistogram("v", "V.", (1.0, 2.0), {})
    registry.register(histogram)
    histogram.observe(1.5, 3)
    text = shown(registry)
    assert 'v_bucket{le="1.0"} 0.0' in text
    assert 'v_bucket{le="2.0"} 3.0' in text
    assert "v_sum 4.5" in text


def test_a_bucket_leads_to_the_trace_of_its_last_request() -> None:
    registry = CollectorRegistry(auto_describe=True)
    histogram = LoopHistogram("v", "V.", (1.0,), {})
    registry.register(histogram)
    with tracing.exporting(lambda _: None, ratio=1.0):
        span = tracing.arrived("request", None)
        histogram.observe(0.5)
        tracing.left(span)
    write = openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert f'# {{trace_id="{span.trace_id:032x}"}} 0.5' in write
