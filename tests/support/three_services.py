"""The three services in one process, over a tiny bundle: for tests of what they tell operators.

They speak gRPC over real channels, and each has its port for metrics; only the tower is a fake.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from decoder_service.app import load, serve_loaded
from decoder_service.config import DecoderConfig
from gateway.app import Gateway
from gateway.config import GatewayConfig
from protos.bundle.manifest import Bundle
from protos.process.main import ServiceProcess
from protos.process.server import GrpcServer
from protos.tandem.v1 import vision_pb2_grpc
from protos.wire.channels import LARGE_MESSAGE_BYTES
from tests.support.bundles import bundle
from tests.support.prompts import png
from tests.unit.gateway.stage import data_url
from tests.unit.vision_service.fakes import FakeEncoders, FakePdfs, FakeVideos
from vision_service.jobs import Encoded, EncodedImage, EncodeJob
from vision_service.servicer import VisionServicer

MODEL = "tiny-tied"
SMALL_IMAGE, WIDER_IMAGE = png(64, 64), png(96, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeServices:
    """Running services: a client of the gateway's, the fake tower, and their metrics' ports."""

    client: openai.AsyncOpenAI
    encoders: FakeEncoders
    metrics_ports: tuple[int, int, int]  # gateway, vision, decoder

    async def ask(self, image: bytes, **options: Any) -> None:
        """Asks about an image, and reads the streamed answer of four tokens."""
        part: Any = {"type": "image_url", "image_url": {"url": data_url(image)}}
        stream = await self.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [part]}],
            max_tokens=4,
            stream=True,
            extra_body={"ignore_eos": True},
            **options,
        )
        async for _ in stream:
            pass


@asynccontextmanager
async def three_services() -> AsyncIterator[ThreeServices]:
    """Starts everything, and ends it in order."""
    folder = bundle("tied")
    served = Bundle.open(folder)
    encoders = _Encoders(
        levels=1 + served.manifest.deepstack_level_count, hidden=served.manifest.text.hidden_size
    )
    async with _vision(served, encoders) as vision, _decoder(folder) as decoder:
        config = GatewayConfig(
            bundle=str(folder),
            http_port=0,
            grpc_port=0,
            metrics_port=0,
            vision=f"127.0.0.1:{vision[0]}",
            decoder=f"127.0.0.1:{decoder[0]}",
            watch_interval_s=0.2,
        )
        async with Gateway(config, served) as gateway:
            base = f"http://127.0.0.1:{gateway.http_port}/v1"
            async with openai.AsyncOpenAI(base_url=base, api_key="-", max_retries=0) as client:
                assert gateway.metrics_port is not None
                ports = (gateway.metrics_port, vision[1], decoder[1])
                yield ThreeServices(client=client, encoders=encoders, metrics_ports=ports)


class _Encoders(FakeEncoders):
    """Features of as many tokens as the gateway planned."""

    async def encode(self, job: EncodeJob) -> Encoded:
        assert isinstance(job.source, EncodedImage) and job.source.expected_grid is not None
        self.grid = job.source.expected_grid
        return await super().encode(job)


@asynccontextmanager
async def _vision(served: Bundle, encoders: FakeEncoders) -> AsyncIterator[tuple[int, int]]:
    """Its ports for calls and for metrics."""
    servicer = VisionServicer(
        served,
        FakeVideos(),
        FakePdfs(),
        max_patches=4096,
        max_bytes=1 << 20,
        max_pixels=1 << 20,
        max_video_bytes=1 << 20,
        max_video_seconds=60.0,
        max_pdf_bytes=88_888,
        encode_timeout_s=30.0,
    )
    servicer.encoders = encoders
    server = GrpcServer(host="127.0.0.1", port=0, max_receive_bytes=LARGE_MESSAGE_BYTES)
    vision_pb2_grpc.add_VisionServiceServicer_to_server(servicer, server.server)
    async with server:
        with servicer.metrics.serving("127.0.0.1", 0) as metrics_port:
            assert metrics_port is not None
            await server.set_serving(True)
            yield server.port, metrics_port


class _Process(ServiceProcess):
    """Keeps what it announces."""

    def __init__(self) -> None:
        super().__init__("decoder")
        self.ports: asyncio.Future[dict[str, int | None]] = asyncio.Future()

    def announce(self, **ports: int | None) -> None:
        self.ports.set_result(ports)


@asynccontextmanager
async def _decoder(folder: Path) -> AsyncIterator[tuple[int, int]]:
    """Its ports for calls and for metrics."""
    config = DecoderConfig(
        bundle=str(folder),
        port=0,
        metrics_port=0,
        threads=1,
        max_sequences=2,
        max_context=512,
        kv_memory_mib=64,
    )
    server = GrpcServer(host="127.0.0.1", port=0)
    process = _Process()
    serving = asyncio.create_task(serve_loaded(config, server, load(config), process))
    metrics_port = (await process.ports)["metrics"]
    assert metrics_port is not None
    yield server.port, metrics_port
    process.stop.set()
    await serving
