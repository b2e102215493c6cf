"""What gRPC alone costs: a server that sends bytes which are ready, without any of our code.

    python -m tests.bench.front.plain CERTIFICATE KEY AUTHORITY

Answers the method of a front: to a request of so many bytes of text as its answer's size, in
messages of a mebibyte. Two ports come on standard output: a plain one, and one with certificates
both ways.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from protos.wire.channels import CHUNK_BYTES, channel_options

SERVICE, METHOD = "tandem.v1.VisionService", "Encode"
_MESSAGE = bytes(CHUNK_BYTES)
_LITTLE = b"about as much as a header or a summary"


async def _encode(request: bytes, _: Any) -> AsyncIterator[bytes]:
    left = int(request)
    yield _LITTLE
    while left > 0:
        yield _MESSAGE if left >= CHUNK_BYTES else _MESSAGE[:left]
        left -= CHUNK_BYTES
    yield _LITTLE


async def main(certificate: bytes, key: bytes, authority: bytes) -> None:
    """Serves until it is killed."""
    server = grpc.aio.server(options=list(channel_options()))
    handlers: dict[str, Any] = {METHOD: grpc.unary_stream_rpc_method_handler(_encode)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    shown = grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authority,
        require_client_auth=True,
    )
    ports = [
        server.add_insecure_port("127.0.0.1:0"),
        server.add_secure_port("127.0.0.1:0", shown),
    ]
    await server.start()
    sys.stdout.write(f"{ports[0]} {ports[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*(Path(name).read_bytes() for name in sys.argv[1:])))
