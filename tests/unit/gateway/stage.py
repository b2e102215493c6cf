"""A real gateway between fake tiers, and clients for its doors."""

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai

from gateway.app import Gateway
from gateway.config import GatewayConfig
from gateway.prompt.tokenizer import PromptTokenizer
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import gateway_pb2_grpc
from protos.wire.channels import channel_options
from tests.support.prompts import png
from tests.unit.gateway.fakes import FakeDecoder, FakeVision

GENERATION = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything a test needs."""

    bundle: Bundle
    tokenizer: PromptTokenizer
    gateway: Gateway
    vision: FakeVision
    decoder: FakeDecoder
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI
    grpc: gateway_pb2_grpc.ChatServiceStub

    def will_say(self, text: str) -> list[int]:
        """Lets the decoder answer with this text; returns its tokens."""
        self.decoder.tokens = self.tokenizer.encode_text(text)
        return list(self.decoder.tokens)

    async def post(self, **body: Any) -> httpx.Response:
        """POST /v1/chat/completions."""
        return await self.http.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def staged(bundle: Bundle, **settings: Any) -> AsyncIterator[Stage]:
    """Starts everything; `settings` are the gateway's, besides where things are.

    Without others no features are kept, so that every image is the vision tier's business, and an
    answer whose decoder is lost does not wait long for another. `tiers` among them is what the
    tiers show and ask for, as `Credentials`.
    """
    credentials = settings.pop("tiers", None)
    async with AsyncExitStack() as stack:
        vision, decoder = FakeVision(bundle), FakeDecoder(bundle)
        vision.credentials = decoder.credentials = credentials
        await stack.enter_async_context(vision)
        await stack.enter_async_context(decoder)
        places = {"vision": vision.address, "decoder": decoder.address}
        defaults = {
            "watch_interval_s": 0.05,
            "drain_timeout_s": 5.0,
            "move_wait_s": 0.2,
            "embedding_cache_mib": 0,
        }
        config = GatewayConfig(
            bundle=str(bundle.path),
            http_port=0,
            grpc_port=0,
            **{**places, **defaults, **settings},
        )
        gateway = await stack.enter_async_context(Gateway(config, bundle))
        base = f"http://127.0.0.1:{gateway.http_port}"
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=base, timeout=20.0))
        client = openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0)
        await stack.enter_async_context(client)
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{gateway.grpc_port}", options=channel_options()
        )
        await stack.enter_async_context(channel)
        yield Stage(
            bundle=bundle,
            tokenizer=PromptTokenizer.from_folder(Path(bundle.path) / "processor"),
            gateway=gateway,
            vision=vision,
            decoder=decoder,
            http=http,
            openai=client,
            grpc=gateway_pb2_grpc.ChatServiceStub(channel),
        )


def user(text: str = "Hello?") -> list[Any]:
    """A conversation of one text."""
    return [{"role": "user", "content": text}]


def data_url(data: bytes) -> str:
    """An image as clients send it."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def image_part(width: int = 64, height: int = 64) -> dict[str, Any]:
    """A content part with a small image."""
    return {"type": "image_url", "image_url": {"url": data_url(png(width, height))}}


def about_images(*sizes: tuple[int, int]) -> list[Any]:
    """A conversation about images of these sizes."""
    parts = [image_part(width, height) for width, height in sizes]
    return [{"role": "user", "content": [{"type": "text", "text": "What?"}, *parts]}]
