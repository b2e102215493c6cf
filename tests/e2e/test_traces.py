"""One image question through gateway, vision and decoder, as a collector of traces sees it.

The three services run in this process, so that no other stack need be started; they speak gRPC
over real channels, and spans leave as they do from processes of their own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

from decoder_service.app import load, serve_loaded
from decoder_service.config import DecoderConfig
from gateway.app import Gateway
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.process import tracing
from protos.process.main import ServiceProcess
from protos.process.server import GrpcServer
from protos.process.trace_export import otlp_sink
from protos.tandem.v1 import vision_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES
from tests.support.bundles import bundle
from tests.support.collector import collecting, told
from tests.unit.gateway.stage import about_images
from tests.unit.vision_service.fakes import FakeEncoders, FakeVideos
from vision_service.jobs import Encoded, EncodedImage, EncodeJob
from vision_service.servicer import VisionServicer

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}


class Encoders(FakeEncoders):
    """Features of as many tokens as the gateway planned."""

    async def encode(self, job: EncodeJob) -> Encoded:
        assert isinstance(job.source, EncodedImage) and job.source.expected_grid is not None
        self.grid = job.source.expected_grid
        return await super().encode(job)


@asynccontextmanager
async def vision(served: Bundle) -> AsyncIterator[str]:
    servicer = VisionServicer(
        served,
        FakeVideos(),
        max_patches=4096,
        max_bytes=1 << 20,
        max_pixels=1 << 20,
        max_video_bytes=1 << 20,
        max_video_seconds=60.0,
        encode_timeout_s=30.0,
    )
    manifest = served.manifest
    servicer.encoders = Encoders(
        levels=1 + manifest.deepstack_level_count, hidden=manifest.text.hidden_size
    )
    server = GrpcServer(host="127.0.0.1", port=0, max_receive_bytes=LARGE_MESSAGE_BYTES)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(servicer, server.server)
    async with server:
        await server.set_serving(True)
        yield f"127.0.0.1:{server.port}"


@asynccontextmanager
async def decoder(folder: Path) -> AsyncIterator[str]:
    config = DecoderConfig(
        bundle=str(folder), port=0, threads=1, max_sequences=2, max_context=512, kv_memory_mib=64
    )
    server = GrpcServer(host="127.0.0.1", port=0)
    process = ServiceProcess("decoder")
    serving = asyncio.create_task(serve_loaded(config, server, load(config), process))
    yield f"127.0.0.1:{server.port}"
    process.stop.set()
    await serving


@asynccontextmanager
async def client() -> AsyncIterator[openai.AsyncOpenAI]:
    """A client of three services that serve the same tiny bundle."""
    folder = bundle("tied")
    served = Bundle.open(folder)
    async with vision(served) as vision_address, decoder(folder) as decoder_address:
        config = GatewayConfig(
            bundle=str(folder),
            http_port=0,
            grpc_port=0,
            vision=vision_address,
            decoder=decoder_address,
            watch_interval_s=0.2,
        )
        async with Gateway(config, served) as gateway:
            base = f"http://127.0.0.1:{gateway.http_port}/v1"
            async with openai.AsyncOpenAI(base_url=base, api_key="-", max_retries=0) as opened:
                yield opened


async def question(asking: openai.AsyncOpenAI, **options: Any) -> None:
    stream = await asking.chat.completions.create(
        model="tiny-tied",
        messages=about_images((64, 64)),
        max_tokens=4,
        stream=True,
        extra_body={"ignore_eos": True},
        **options,
    )
    async for _ in stream:
        pass


def below(spans: list[Any], cause: Any) -> dict[str, Any]:
    """The spans right below another, by name."""
    return {span.name: span for span in spans if span.parent_span_id == cause.span_id}


async def test_a_trace_of_an_image_question_has_every_part_under_its_cause() -> None:
    with collecting() as collector:
        with otlp_sink(collector.endpoint, "x") as sink, tracing.exporting(sink, ratio=0.0):
            async with client() as asking:
                await question(asking, extra_headers=SAMPLED)
                await question(asking)  # without a traceparent: not traced at this ratio
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
    assert (
        told(whole)["gen_ai.usage.output_tokens"] == told(generating)["gen_ai.usage.output_tokens"]
    )
    assert told(whole)["gen_ai.request.max_tokens"] == 4 and told(whole)["gen_ai.request.stream"]
    first, last = whole.start_time_unix_nano, whole.end_time_unix_nano
    assert all(first <= span.start_time_unix_nano <= last for span in spans if span is not whole)
