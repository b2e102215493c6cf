"""Which requests are traced, and what their spans say."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.request import traced
from protos.process import request_log, tracing
from protos.process.metrics import TierMetrics
from protos.process.request_log import recording
from protos.process.tracing import Kind, Parent, Span
from protos.wire.errors import Overloaded

TRACE, CALLER = 0xABCDEF, 0x1234
SAMPLED = f"00-{TRACE:032x}-{CALLER:016x}-01"
UNSAMPLED = f"00-{TRACE:032x}-{CALLER:016x}-00"


@contextmanager
def traced_at(ratio: float) -> Iterator[list[Span]]:
    spans: list[Span] = []
    with tracing.exporting(spans.append, ratio=ratio):
        yield spans


@pytest.mark.parametrize(
    ("ratio", "header", "count"),
    [
        (0.0, SAMPLED, 1),
        (1.0, UNSAMPLED, 0),
        (0.0, None, 0),
        (1.0, None, 1),
        (1.0, "garbage", 1),
        (0.0, "garbage", 0),
    ],
)
def test_a_caller_decides_and_else_the_ratio(ratio: float, header: str | None, count: int) -> None:
    with traced_at(ratio) as spans, recording("vision", traceparent=header):
        pass
    assert len(spans) == count


@pytest.mark.parametrize(
    "header",
    [
        f"ff-{TRACE:032x}-{CALLER:016x}-01",
        f"00-{0:032x}-{CALLER:016x}-01",
        f"00-{TRACE:032x}-{0:016x}-01",
        f"00-{TRACE:032X}-{CALLER:016x}-01",
        SAMPLED + "-more",
        SAMPLED[:-1],
        " " + SAMPLED,
        "",
        None,
    ],
)
def test_what_is_no_traceparent_is_none(header: str | None) -> None:
    assert Parent.of(header) is None


def test_later_versions_may_say_more() -> None:
    assert Parent.of(f"01-{TRACE:032x}-{CALLER:016x}-03-more") == (TRACE, CALLER, True)


def test_a_request_is_a_child_of_its_caller_with_what_its_line_says() -> None:
    with traced_at(0.0) as (spans), recording("x", "id-1", traceparent=SAMPLED, door="http") as at:
        at.first_token()
        at.note(prompt_tokens=7, completion_tokens=3, key="somebody")
        at.ended("stop")
    (span,) = spans
    assert (span.trace_id, span.parent_id, span.kind) == (TRACE, CALLER, Kind.SERVER)
    assert 0 < span.start_ns <= span.end_ns <= time.time_ns()
    assert span.attributes.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(0, abs=5)
    assert span.attributes == {
        "tandem.request_id": "id-1",
        "tandem.door": "http",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
    }


def test_an_error_is_told_by_its_reason_alone() -> None:
    with traced_at(1.0) as spans:
        with pytest.raises(Overloaded), recording("x"):
            raise Overloaded("of 10.0.0.1")
        with pytest.raises(asyncio.CancelledError), recording("x"):
            raise asyncio.CancelledError
    assert [span.failure for span in spans] == ["QUEUE_FULL", "CANCELLED"]
    assert "10.0.0.1" not in str([span.attributes for span in spans])


def test_parts_that_are_over_lie_end_to_end() -> None:
    with traced_at(1.0) as spans, recording("x") as record:
        record.took(queue=1.0, encode=2.5)
    queue, encode, whole = spans
    assert (queue.name, encode.name) == ("queue", "encode")
    assert queue.parent_id == encode.parent_id == whole.span_id
    assert queue.end_ns == encode.start_ns
    assert (queue.end_ns - queue.start_ns, encode.end_ns - encode.start_ns) == (10**6, 2_500_000)


async def test_calls_made_inside_a_part_are_its_children_and_others_the_requests() -> None:
    async def part() -> str:
        with tracing.inside("encode"):
            await asyncio.sleep(0)
            return dict(tracing.metadata("id"))["traceparent"]

    with traced_at(1.0) as spans, recording("x") as record:
        one, other = await asyncio.gather(part(), part())
        outer = dict(tracing.metadata("id"))["traceparent"]
    assert outer == record.span.traceparent
    first, second, _ = spans
    assert {one, other} == {first.traceparent, second.traceparent} and one != other
    assert first.parent_id == second.parent_id == record.span.span_id


def test_the_next_service_is_told_not_to_trace_what_is_not_traced() -> None:
    with traced_at(0.0), recording("x"):
        carried = Parent.of(dict(tracing.metadata("id"))["traceparent"])
    assert carried is not None and not carried.sampled


def test_nothing_is_carried_or_kept_where_tracing_is_off() -> None:
    with recording("x", traceparent=SAMPLED) as record:
        record.took(queue=1.0)
        assert tracing.metadata("id") == (("x-request-id", "id"),)
        assert tracing.exemplar() is None
    assert record.span is tracing.UNTRACED and not record.span.attributes


def test_what_follows_a_request_belongs_to_none() -> None:
    with traced_at(1.0):
        with recording("x"):
            assert tracing.current().is_traced
        assert not tracing.current().is_traced


def test_a_histograms_exemplars_lead_to_the_trace() -> None:
    metrics = TierMetrics("vision")
    with traced_at(0.0), recording("vision", metrics=metrics, traceparent=SAMPLED):
        pass
    with recording("vision", metrics=metrics):  # untraced: leaves the other's there
        pass
    text, _ = metrics.exposition("application/openmetrics-text")
    samples = [
        sample
        for family in text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    ]
    assert [sample.exemplar.labels for sample in samples] == [{"trace_id": f"{TRACE:032x}"}]
    assert samples[0].name == "tandem:vision_request_seconds_bucket"
    plain, _ = metrics.exposition("")
    assert b"trace_id" not in plain


def test_names_are_those_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    sources = (request_log.__file__, traced.__file__)
    words = " ".join(Path(path).read_text() for path in sources).replace('"', " ").split()
    used = {word for word in words if word.startswith("gen_ai.")}
    assert len(used) > 10 and used <= known
