"""The client's programme: reads jobs from standard input and performs them, one after the other.

A line of input is JSON: `address`, `calls`, `callers`, `request` (a file that holds the message),
and `secrets`, the folder of a host's certificates, or null for a plain channel. A line of output
tells `seconds` and `bytes` received. Messages are not read, only counted.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from protos.wire.channels import LARGE_MESSAGE_BYTES, open_channel
from protos.wire.credentials import CredentialFiles, Credentials
from tests.bench.front.plain import METHOD, SERVICE

_TIMEOUT_S = 300.0


def credentials(folder: Path) -> Credentials:
    """What a host shows and asks for."""
    return Credentials(
        tls=True,
        certificate=str(folder / "certificate.pem"),
        key=str(folder / "key.pem"),
        authority=str(folder / "authority.pem"),
        token_file=str(folder / "token"),
    )


class Client:
    """Keeps one channel to each address."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def perform(self, job: dict[str, Any]) -> dict[str, float]:
        """One job."""
        call: Any = self._channel(job).unary_stream(f"/{SERVICE}/{METHOD}")
        message = await asyncio.to_thread(Path(job["request"]).read_bytes)
        left, received = job["calls"], 0

        async def caller() -> None:
            nonlocal left, received
            while left > 0:
                left -= 1
                async for piece in call(message, timeout=_TIMEOUT_S):
                    received += len(piece)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(job["callers"])))
        return {"seconds": time.perf_counter() - began, "bytes": received}

    def _channel(self, job: dict[str, Any]) -> grpc.aio.Channel:
        address = job["address"]
        if address not in self._channels:
            secrets = job["secrets"]
            files = CredentialFiles(credentials(Path(secrets))) if secrets else None
            self._channels[address] = open_channel(
                address, files, max_receive_bytes=LARGE_MESSAGE_BYTES
            )
        return self._channels[address]


async def main() -> None:
    """Performs until standard input ends."""
    client = Client()
    while line := await asyncio.to_thread(sys.stdin.readline):
        sys.stdout.write(json.dumps(await client.perform(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
