"""What TLS and a token cost a call: features of 20 MB, streams of tokens, and a first call.

    python -m tests.bench.hops

Both ends are in this process, on one event loop; plain and secured rounds alternate, and the least
time of each is told. The last line is JSON.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2, vision_pb2, vision_pb2_grpc
from protos.wire.channels import CHUNK_BYTES, LARGE_MESSAGE_BYTES, open_channel
from protos.wire.credentials import CredentialFiles, Credentials
from tests.support.certificates import HOST, made

CHUNKS = 20
STREAMS = 16
TOKENS = 128
ROUNDS = 15

Measure = Callable[[grpc.aio.Channel], Awaitable[None]]


class Vision(vision_pb2_grpc.VisionServiceServicer):
    """Sends features of 20 MiB."""

    def __init__(self) -> None:
        values = tensor_pb2.Tensor(data=bytes(CHUNK_BYTES))
        self._answer = vision_pb2.EncodeChunk(features=tensor_pb2.FeatureChunk(values=values))

    async def Encode(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for _ in range(CHUNKS):
            yield self._answer


class Decoder(decoder_pb2_grpc.DecoderServiceServicer):
    """Sends tokens, one a message."""

    async def Generate(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        async for _ in requests:
            break
        for token in range(TOKENS):
            yield decoder_pb2.GenerateResponse(tokens=decoder_pb2.TokenChunk(token_ids=[token]))

    async def GetLoad(self, request: Any, context: Any) -> Any:
        return decoder_pb2.DecoderLoad()


async def transfer(channel: grpc.aio.Channel) -> None:
    """One encoded image."""
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    async for _ in stub.Encode(vision_pb2.EncodeRequest()):
        pass


async def streams(channel: grpc.aio.Channel) -> None:
    """Several answers at once."""
    stub = decoder_pb2_grpc.DecoderServiceStub(channel)

    async def stream() -> None:
        async for _ in stub.Generate(iter([decoder_pb2.GenerateRequest()])):
            pass

    await asyncio.gather(*(stream() for _ in range(STREAMS)))


async def small_calls(channel: grpc.aio.Channel) -> None:
    """Calls one after the other."""
    stub = decoder_pb2_grpc.DecoderServiceStub(channel)
    for _ in range(50):
        await stub.GetLoad(decoder_pb2.GetLoadRequest())


async def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        secured = made(Path(folder))
        kinds = {"plain": Credentials(), "secured": secured}
        async with AsyncExitStack() as stack:
            channels = {name: await served(stack, kind) for name, kind in kinds.items()}
            found = {
                f"{measure.__name__}_{name}_ms": round(least * 1e3, 2)
                for measure in (transfer, streams, small_calls)
                for name, least in (await compared(measure, channels)).items()
            }
        found["first_call_secured_ms"] = round(await first_call(secured) * 1e3, 2)
        found["first_call_plain_ms"] = round(await first_call(Credentials()) * 1e3, 2)
    print(json.dumps(found))


async def served(stack: AsyncExitStack, credentials: Credentials) -> grpc.aio.Channel:
    """A channel to a server of its own."""
    server = GrpcServer(
        host=HOST,
        port=0,
        max_receive_bytes=LARGE_MESSAGE_BYTES,
        drain_timeout_s=0,
        credentials=credentials,
    )
    vision_pb2_grpc.add_VisionServiceServicer_to_server(Vision(), server.server)
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(Decoder(), server.server)
    await stack.enter_async_context(server)
    channel = open_channel(f"{HOST}:{server.port}", CredentialFiles(credentials))
    stack.push_async_callback(channel.close)
    return channel


async def compared(measure: Measure, channels: dict[str, grpc.aio.Channel]) -> dict[str, float]:
    """The least seconds of each kind."""
    least = dict.fromkeys(channels, float("inf"))
    for _ in range(ROUNDS):
        for name, channel in channels.items():
            started = time.perf_counter()
            await measure(channel)
            least[name] = min(least[name], time.perf_counter() - started)
    return least


async def first_call(credentials: Credentials) -> float:
    """Seconds of the first call over a new connection, the least of some."""
    found = []
    async with AsyncExitStack() as stack:
        for _ in range(5):
            channel = await served(stack, credentials)
            started = time.perf_counter()
            await decoder_pb2_grpc.DecoderServiceStub(channel).GetLoad(decoder_pb2.GetLoadRequest())
            found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    asyncio.run(main())
