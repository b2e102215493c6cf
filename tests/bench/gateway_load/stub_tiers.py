"""A vision tier and a decoder that cost next to nothing, on one port, for timing the gateway.

    python -m tests.bench.gateway_load.stub_tiers BUNDLE [--slots N] [--service-ms MS]
        [--most-tokens N]

Messages are serialized once and sent as bytes. Every answer has as many tokens as its request's
`max_tokens`, one in a message, as fast as they are taken. With `--slots`, so many requests are
answered at a time, each after `--service-ms`; the others wait. With `--most-tokens`, an answer has
no more. The port comes on standard output.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from gateway.prompt.tokenizer import PromptTokenizer
from protos.bundle.manifest import Bundle
from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, tensor_pb2, vision_pb2
from protos.wire import features
from protos.wire.channels import LARGE_MESSAGE_BYTES

TEXT = " the square is red and the circle beside it is blue"
MAX_CONTEXT = 32768
DEFAULT_TOKENS = 16

Context = grpc.aio.ServicerContext[Any, Any]


class StubTiers:
    """Both services as handlers of bytes."""

    def __init__(
        self, bundle: Bundle, *, slots: int, service_s: float, most_tokens: int = MAX_CONTEXT
    ) -> None:
        self._manifest = bundle.manifest
        self._digest = bundle.digest
        self._service_s = service_s
        self._most_tokens = most_tokens
        self._slots = asyncio.Semaphore(slots) if slots else nullcontext()
        ids = PromptTokenizer.from_folder(bundle.path / "processor").encode_text(TEXT)
        likely = [decoder_pb2.TokenLogprobs(logprob=-0.5)]
        self._tokens = [_response(token, ()) for token in ids]
        self._reported = [_response(token, likely) for token in ids]

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the handlers."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        both = grpc.stream_stream_rpc_method_handler
        vision: dict[str, Any] = {"GetModelInfo": unary(self._info), "Encode": stream(self._encode)}
        decoder: dict[str, Any] = {
            "GetModelInfo": unary(self._info),
            "GetLoad": unary(self._load),
            "Generate": both(self._generate),
        }
        for name, handlers in (("VisionService", vision), ("DecoderService", decoder)):
            generic = grpc.method_handlers_generic_handler(f"tandem.v1.{name}", handlers)
            server.add_generic_rpc_handlers((generic,))

    async def _info(self, _: bytes, __: Context) -> bytes:
        manifest = self._manifest
        return tensor_pb2.ModelInfo(
            bundle_digest=self._digest,
            family=manifest.family,
            model_id=manifest.model_id,
            hidden_size=manifest.text.hidden_size,
            deepstack_level_count=manifest.deepstack_level_count,
            max_context=MAX_CONTEXT,
        ).SerializeToString()

    async def _load(self, _: bytes, __: Context) -> bytes:
        return decoder_pb2.DecoderLoad(slot_count=4).SerializeToString()

    async def _encode(self, data: bytes, _: Context) -> AsyncIterator[bytes]:
        grid = vision_pb2.EncodeRequest.FromString(data).expected_grid_thw
        count, levels = (
            grid.t * grid.h * grid.w // 4,
            1 + self._manifest.deepstack_level_count,
        )
        header = vision_pb2.EncodeHeader(grid_thw=grid, token_count=count, level_count=levels)
        yield vision_pb2.EncodeChunk(header=header).SerializeToString()
        values = np.zeros((count, self._manifest.text.hidden_size), dtype=np.float32)
        for level in range(levels):
            chunk = features.to_proto(values, level=level, row_offset=0, form="float32")
            yield vision_pb2.EncodeChunk(features=chunk).SerializeToString()
        yield vision_pb2.EncodeChunk(summary=vision_pb2.EncodeSummary()).SerializeToString()

    async def _generate(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        start = decoder_pb2.GenerateRequest.FromString(await anext(requests)).start
        async with self._slots:
            if self._service_s:
                await asyncio.sleep(self._service_s)
            needed = range(len(start.visual_spans))
            yield decoder_pb2.GenerateResponse(
                admission=decoder_pb2.Admission(needed_spans=needed)
            ).SerializeToString()
            async for _request in requests:
                pass
            wanted = start.stop_conditions.max_tokens or DEFAULT_TOKENS
            count = min(wanted, self._most_tokens)
            tokens = self._reported if start.report_options.logprobs else self._tokens
            for at in range(count):
                yield tokens[at % len(tokens)]
            yield decoder_pb2.GenerateResponse(
                completion=decoder_pb2.Completion(
                    finish_reason=decoder_pb2.FINISH_REASON_LENGTH,
                    prompt_tokens=len(start.input_ids),
                    completion_tokens=count,
                )
            ).SerializeToString()


def _response(token: int, logprobs: Sequence[decoder_pb2.TokenLogprobs]) -> bytes:
    chunk = decoder_pb2.TokenChunk(token_ids=[token], logprobs=logprobs)
    return decoder_pb2.GenerateResponse(tokens=chunk).SerializeToString()


async def _serve(bundle: Bundle, *, slots: int, service_s: float, most_tokens: int) -> None:
    server = GrpcServer(host="127.0.0.1", port=0, max_receive_bytes=LARGE_MESSAGE_BYTES)
    tiers = StubTiers(bundle, slots=slots, service_s=service_s, most_tokens=most_tokens)
    tiers.register(server.server)
    async with server:
        await server.set_serving(True)
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> int:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description="Tiers that cost next to nothing.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--service-ms", type=float, default=0.0)
    parser.add_argument("--most-tokens", type=int, default=MAX_CONTEXT)
    arguments = parser.parse_args()
    bundle = Bundle.open(arguments.bundle)
    asyncio.run(
        _serve(
            bundle,
            slots=arguments.slots,
            service_s=arguments.service_ms / 1e3,
            most_tokens=arguments.most_tokens,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
