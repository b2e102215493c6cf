"""One image question through gateway, vision and decoder, as a collector of traces sees it."""

from typing import Any

from protos.process import tracing
from protos.process.trace_export import otlp_sink
from tests.support.collector import collecting, told
from tests.support.three_services import SMALL_IMAGE, three_services

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


def below(spans: list[Any], cause: Any) -> dict[str, Any]:
    """The spans right below another, by name."""
    return {span.name: span for span in spans if span.parent_span_id == cause.span_id}


async def test_a_trace_of_an_image_question_has_every_part_under_its_cause() -> None:
    with collecting() as collector:
        with otlp_sink(collector.endpoint, "x") as sink, tracing.exporting(sink, ratio=0.0):
            async with three_services() as services:
                await services.ask(SMALL_IMAGE, extra_headers=SAMPLED)
                await services.ask(SMALL_IMAGE)  # without a traceparent: not traced at this ratio
    spans = collector.spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    (whole,) = [span for span in spans if span.parent_span_id.hex() == CALLER]
    parts = below(spans, whole)
    assert (whole.name, set(parts)) == ("chat tiny-tied", {"prepare", "encode", "generate"})
    (encoding,) = below(spans, parts["encode"]).values()
    (generating,) = below(spans, parts["generate"]).values()
    assert encoding.name == "tandem.v1.VisionService/Encode"
    assert generating.name == "tandem.v1.DecoderService/Generate"
    assert set(below(spans, encoding)) == {"queue", "preprocess", "encode"}
    assert set(below(spans, generating)) == {"queue", "prefill", "decode"}
    assert len(spans) == 12 and not any(span.status.code for span in spans)
    for each in (whole, generating):
        assert told(each)["gen_ai.usage.output_tokens"] == 4
    assert told(whole)["gen_ai.request.max_tokens"] == 4 and told(whole)["gen_ai.request.stream"]
    first, last = whole.start_time_unix_nano, whole.end_time_unix_nano
    assert all(first <= span.start_time_unix_nano <= last for span in spans)
