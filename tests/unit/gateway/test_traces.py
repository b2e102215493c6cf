"""What of a request is traced at each door, and what leads from a metric to it."""

from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from protos.process import tracing
from protos.process.tracing import Parent, Span
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import Overloaded
from tests.unit.gateway.stage import Stage, about_images, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRACE, CALLER = 0xABC, 0xDEF
SAMPLED = f"00-{TRACE:032x}-{CALLER:016x}-01"


@pytest.fixture
def spans() -> Iterator[list[Span]]:
    found: list[Span] = []
    with tracing.exporting(found.append, ratio=0.0):
        yield found


async def test_the_grpc_door_continues_its_clients_trace(stage: Stage, spans: list[Span]) -> None:
    part = gateway_pb2.ContentPart(text="Secret?")
    message = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
    request = gateway_pb2.ChatRequest(messages=[message])
    async for _ in stage.grpc.Complete(request, metadata=(("traceparent", SAMPLED),)):
        pass
    whole = {span.name: span for span in spans}["chat test"]
    assert (whole.trace_id, whole.parent_id) == (TRACE, CALLER)
    assert whole.attributes["tandem.door"] == "grpc"
    assert "Secret" not in str([span.attributes for span in spans])


async def test_every_choice_is_a_generation_that_its_decoder_hears_of(
    stage: Stage, spans: list[Span]
) -> None:
    body = {"messages": user(), "n": 2}
    await stage.http.post("/v1/chat/completions", json=body, headers={"traceparent": SAMPLED})
    heard = {Parent.of(each["traceparent"]) for each in stage.decoder.metadata}
    made = [span for span in spans if span.name == "generate"]
    assert heard == {(TRACE, span.span_id, True) for span in made} and len(heard) == 2
    assert {span.parent_id for span in made} == {spans[-1].span_id}
    assert spans[-1].attributes["gen_ai.request.choice.count"] == 2


async def test_a_failure_is_told_where_it_was_and_in_what_it_ended(
    stage: Stage, spans: list[Span]
) -> None:
    stage.vision.failures = [Overloaded("full")]
    body = {"messages": about_images((64, 64))}
    answer = await stage.http.post(
        "/v1/chat/completions", json=body, headers={"traceparent": SAMPLED}
    )
    assert answer.status_code == 429
    failures = {span.name: span.failure for span in spans}
    assert failures["encode"] == failures["chat test"] == "QUEUE_FULL"
    assert failures["prepare"] is None


async def test_times_between_tokens_lead_to_a_trace(stage: Stage, spans: list[Span]) -> None:
    body = {"messages": user(), "stream": True}
    await stage.http.post("/v1/chat/completions", json=body, headers={"traceparent": SAMPLED})
    accept = {"accept": "application/openmetrics-text"}
    text = (await stage.http.get("/metrics", headers=accept)).text
    named = {
        sample.name
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None and sample.exemplar.labels["trace_id"] == f"{TRACE:032x}"
    }
    times = ("inter_token_latency", "time_to_first_token", "e2e_request_latency")
    assert {f"vllm:{name}_seconds_bucket" for name in times} <= named


async def test_what_nobody_wants_traced_is_not(stage: Stage, spans: list[Span]) -> None:
    await stage.post(messages=user())
    carried = Parent.of(stage.decoder.metadata[-1]["traceparent"])
    assert not spans and carried is not None and not carried.sampled
