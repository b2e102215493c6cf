"""A decoder process that answers looks and nothing else, to be stopped by signals.

Usage: python -m tests.unit.gateway.tiers.stub_decoder BUNDLE_DIGEST; prints its port.
"""

import asyncio
import sys
from typing import Any

import grpc

from protos.process.server import GrpcServer
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2

Context = grpc.aio.ServicerContext[Any, Any]


class Stub(decoder_pb2_grpc.DecoderServiceServicer):
    async def GetModelInfo(
        self, request: decoder_pb2.GetDecoderModelInfoRequest, context: Context
    ) -> tensor_pb2.ModelInfo:
        return tensor_pb2.ModelInfo(bundle_digest=sys.argv[1], max_context=64)

    async def GetLoad(
        self, request: decoder_pb2.GetLoadRequest, context: Context
    ) -> decoder_pb2.DecoderLoad:
        return decoder_pb2.DecoderLoad()


async def main() -> None:
    server = GrpcServer(host="127.0.0.1", port=0)
    decoder_pb2_grpc.add_DecoderServiceServicer_to_server(Stub(), server.server)
    async with server:
        await server.set_serving(True)
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)  # until the test goes


if __name__ == "__main__":
    asyncio.run(main())
