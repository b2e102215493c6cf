"""What an attacker, a careless client and a bad day try at the doors, many at a time.

Each case ends with a good request that is answered, and nothing left at work.
"""

import asyncio
import random
import struct
import time
from collections import Counter
from typing import Any

import grpc
import pytest

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import gateway_pb2
from protos.wire.channels import LARGE_MESSAGE_BYTES
from tests.unit.gateway.stage import Stage, about_images, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEEDS = 600
SOON_S = 5.0  # a second on cores that nobody else keeps busy


async def works(stage: Stage) -> None:
    """A good request is answered soon, and nothing else is at work."""
    began = time.monotonic()
    assert (await stage.http.get("/health")).status_code == 200
    assert (await stage.post(messages=user())).status_code == 200
    assert time.monotonic() - began < SOON_S
    assert stage.gateway._service.admission.in_flight == 0


def asked(text: str = "Hello?") -> gateway_pb2.ChatRequest:
    part = gateway_pb2.ContentPart(text=text)
    turn = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
    return gateway_pb2.ChatRequest(messages=[turn])


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call ends, whatever it answers before."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        assert "Traceback" not in str(error.details())
    found: grpc.StatusCode = await call.code()
    return found


async def test_random_messages_are_refused_and_the_door_lives(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(1)
    good = asked().SerializeToString()
    codes = Counter[grpc.StatusCode]()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.gateway.grpc_port}") as channel:
        for seed in range(SEEDS):
            data = bytearray(good if seed % 2 else rng.randbytes(rng.randrange(1, 100)))
            place = rng.randrange(len(data))
            data[place : place + 4] = rng.randbytes(rng.randrange(1, 9))
            method: Any = channel.unary_stream("/tandem.v1.ChatService/Complete")
            codes[await code_of(method(bytes(data), timeout=20))] += 1
        unknown: Any = channel.unary_unary("/tandem.v1.ChatService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unknown(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert {code.name for code in codes} <= {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND"}
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > SEEDS // 4
    assert not caplog.records
    await works(stage)


async def test_a_message_above_the_limit_is_refused_by_the_core(stage: Stage) -> None:
    address = f"127.0.0.1:{stage.gateway.grpc_port}"
    sends_anything = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=sends_anything) as channel:
        method: Any = channel.unary_stream("/tandem.v1.ChatService/Complete")
        call = method(bytes(LARGE_MESSAGE_BYTES + 1), timeout=60)
        assert await code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stage.decoder.starts == []
    await works(stage)


async def test_metadata_beyond_reason_are_refused_by_the_core(stage: Stage) -> None:
    for size in (64 << 10, 1 << 20):
        call = stage.grpc.Complete(asked(), metadata=(("x-large", "a" * size),), timeout=20)
        assert await code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await works(stage)


async def test_a_flood_of_pings_ends_its_connection_alone(stage: Stage) -> None:
    ping = struct.pack(">I", 8 << 8 | 6) + bytes(5) + bytes(8)
    begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.grpc_port)
    writer.write(begin + ping * 10_000)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(20):
            while True:
                await reader.readexactly(1 << 16)
    writer.close()
    assert await code_of(stage.grpc.Complete(asked(), timeout=20)) is grpc.StatusCode.OK
    await works(stage)


async def test_hundreds_of_idle_connections_keep_nobody_waiting(stage: Stage) -> None:
    port = stage.gateway.http_port
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
    await works(stage)
    for _, writer in idle:
        writer.close()


async def test_deadlines_are_kept_whatever_they_are(stage: Stage) -> None:
    stage.decoder.stall_after = 0
    for timeout_s in (0.0, 0.05):
        began = time.monotonic()
        call = stage.grpc.Complete(asked(), timeout=timeout_s)
        assert await code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < timeout_s + 1.0
    stage.decoder.stall_after = None
    stage.decoder.time_left_s.clear()
    for ample in (None, 1e9):
        assert await code_of(stage.grpc.Complete(asked(), timeout=ample)) is grpc.StatusCode.OK
    assert all(left is not None and left < 3600.0 for left in stage.decoder.time_left_s)
    await works(stage)


async def test_of_two_hundred_images_at_once_each_gets_its_answer(bundle: Bundle) -> None:
    async with staged(bundle, max_in_flight=16) as stage:
        stage.will_say("Hi there")
        body = {"messages": about_images((64, 64))}
        answers = await asyncio.gather(*(stage.post(**body) for _ in range(200)))
        counts = Counter(answer.status_code for answer in answers)
        assert sum(counts.values()) == 200
        assert set(counts) <= {200, 429, 503}
        assert counts[200] >= 16
        assert all("retry-after" in one.headers for one in answers if one.status_code != 200)
        assert len(stage.vision.requests) == counts[200]  # nothing is encoded for the refused
        await works(stage)


async def test_a_storm_of_scrapes_with_odd_names_adds_no_series(stage: Stage) -> None:
    async def series() -> set[str]:
        text = (await stage.http.get("/metrics")).text
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return {line.rpartition(" ")[0] for line in lines}

    async def odd(name: str) -> None:
        answer = await stage.post(messages=user(), model=name)
        assert answer.status_code == 404
        await stage.http.get(f"/{name}", headers={"x-request-id": name})

    await odd("first")
    before = await series()
    await asyncio.gather(*(odd(f"name-{at}") for at in range(20)))
    scraped = await asyncio.gather(*(series() for _ in range(30)))
    assert all(one == before for one in scraped)
    await works(stage)


async def test_a_name_of_a_mebibyte_is_no_model_and_no_file(stage: Stage) -> None:
    for name in ("../../x" * 3, "/etc/passwd", "a" * (1 << 20)):
        answer = await stage.post(messages=user(), model=name)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert len(answer.content) < 1000
    await works(stage)
