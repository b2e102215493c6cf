"""F68: a mebibyte of metadata, ten thousand connections, a flood of pings, at every server."""

import asyncio
import contextlib
import math
import resource
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx

from tests.faults.doors import Doors, Found
from tests.faults.frames import Connection

LIMIT = 10_000  # connections to one server
METADATA_BYTES = (64 << 10, 1 << 20)
PINGS = 10_000
AT_ONCE = 100  # connections that are opened together; a listener's queue holds 128 or more
SPARE = 200  # descriptors for everything else
LOOKS, LOOK_S = 5, 1.0  # at health while they are open, each on a new connection
METHODS = {
    "gateway": "/tandem.v1.ChatService/Complete",
    "vision": "/tandem.v1.VisionService/GetModelInfo",
    "decoder": "/tandem.v1.DecoderService/GetModelInfo",
}


async def try_connections(doors: Doors, count: int = LIMIT) -> Found:
    """Each is refused or ends alone, and everybody else is served."""
    found = Found()
    for tier, address in doors.grpc.items():
        await _metadata(tier, address, found)
        await _pings(tier, address, found)
    places = {"HTTP": f"127.0.0.1:{doors.port}", **doors.grpc}
    for name, address in places.items():
        async with idle(address, count) as opened:
            found.figures[f"{name}: connections"] = len(opened)
            found.expect(len(opened) == count, f"{name}: {len(opened)} of {count} connections")
            slowest = await _slowest_look(doors)
            if slowest < math.inf:
                found.figures[f"{name}: health meanwhile, most ms"] = round(1e3 * slowest)
            found.expect(slowest <= LOOK_S, f"{name}: health took {slowest:.1f} s")
    return found


@contextlib.asynccontextmanager
async def idle(address: str, count: int) -> AsyncIterator[list[socket.socket]]:
    """Connections that never send a byte; fewer where descriptors or the server allow no more."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:

        async def one() -> socket.socket | None:
            opened = stack.enter_context(socket.socket())
            opened.setblocking(False)
            try:
                async with asyncio.timeout(30):
                    await loop.sock_connect(opened, (host, int(port)))
            except (OSError, TimeoutError):
                return None
            return opened

        made: list[socket.socket] = []
        left = min(count, descriptors() - SPARE)
        while left > 0:
            some = await asyncio.gather(*(one() for _ in range(min(AT_ONCE, left))))
            made += [each for each in some if each is not None]
            left -= len(some)
        yield made


def descriptors() -> int:
    """How many this process may open, after asking for as many as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def _slowest_look(doors: Doors) -> float:
    """Seconds of the slowest of some looks at health; a look that fails takes forever."""
    slowest = 0.0
    for _ in range(LOOKS):
        async with doors.client() as client:
            began = time.perf_counter()
            try:
                answer = await client.get("/health", timeout=10 * LOOK_S)
            except httpx.HTTPError:
                return math.inf
        slowest = max(slowest, time.perf_counter() - began)
        if answer.status_code != 200:
            return math.inf
    return slowest


async def _metadata(tier: str, address: str, found: Found) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        method: Any = channel.unary_stream(METHODS[tier])
        for size in METADATA_BYTES:
            call = method(b"", metadata=(("x-large", "a" * size),), timeout=20)
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError:
                pass  # its code is read below
            code = await call.code()
            is_refused = code is grpc.StatusCode.RESOURCE_EXHAUSTED
            found.expect(is_refused, f"{tier}: {size} bytes of metadata are {code.name}")


async def _pings(tier: str, address: str, found: Found) -> None:
    began = time.perf_counter()
    try:
        async with Connection(address) as connection, asyncio.timeout(20):
            await connection.flood(PINGS)
    except (TimeoutError, ConnectionError):
        found.faults.append(f"{tier}: {PINGS} pings did not end their connection")
    took = time.perf_counter() - began
    found.figures[f"{tier}: pings ended their connection after, ms"] = round(1e3 * took)
