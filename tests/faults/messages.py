"""F66: random bytes and damaged messages at every method of every gRPC server."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from protos.tandem.v1 import decoder_pb2, gateway_pb2, vision_pb2
from protos.wire.tensors import to_proto
from tests.faults.doors import Doors, Found

LIMIT = 10_000  # at each server
AT_ONCE = 16
TIMEOUT_S = 60.0
METHODS = {
    "gateway": ("ChatService/Complete", "ChatService/Prepare", "ChatService/Continue"),
    "vision": (
        "VisionService/Encode",
        "VisionService/SampleVideo",
        "VisionService/GetModelInfo",
    ),
    "decoder": (
        "DecoderService/Generate",
        "DecoderService/GetModelInfo",
        "DecoderService/GetLoad",
    ),
}
NOBODYS = "ChatService/Nothing"
# OK: what was damaged may still be a question.
ALLOWED = {"OK", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
# With INTERNAL: what gRPC's client makes of a call that was refused while it still wrote.
CORES = "Internal error from Core"


async def try_messages(doors: Doors, count: int = LIMIT) -> Found:
    """Each is refused by name or answered, and the process lives."""
    found = Found()
    for tier in METHODS:
        codes = await _at_door(doors, tier, count, found)
        for code, times in codes.items():
            found.figures[f"{tier} {code}"] = times
    return found


async def _at_door(doors: Doors, tier: str, count: int, found: Found) -> Counter[str]:
    codes, seeds = Counter[str](), iter(range(count))
    metadata = (("authorization", f"Bearer {doors.key}"),)
    async with grpc.aio.insecure_channel(doors.grpc[tier]) as channel:

        async def send() -> None:
            for seed in seeds:
                rng = random.Random(seed)
                method, data = _drawn(rng, tier)
                ask: Any = channel.stream_stream(f"/tandem.v1.{method}")
                call = ask(iter([data]), timeout=TIMEOUT_S, metadata=metadata)
                codes[await _code(call, f"{tier}, seed {seed}, {method}", found)] += 1

        await asyncio.gather(*(send() for _ in range(AT_ONCE)))
    return codes


async def _code(call: Any, what: str, found: Found) -> str:
    """How a call ends; what must not be is noted."""
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError:
        pass  # its code is read below
    code, details = str((await call.code()).name), await call.details()
    is_cores = code == "INTERNAL" and details == CORES
    found.expect(code in ALLOWED or is_cores, f"{what}: {code} {details}")
    found.expect("Traceback" not in str(details), f"{what}: a traceback")
    return code


def _drawn(rng: random.Random, tier: str) -> tuple[str, bytes]:
    """A method and what is sent to it."""
    method = rng.choice((*METHODS[tier], NOBODYS))
    if rng.random() < 0.5:
        return method, rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(_good(tier)))
    place = rng.randrange(len(data))
    data[place : place + rng.randrange(5)] = rng.randbytes(rng.randrange(1, 9))
    return method, bytes(data)


def _good(tier: str) -> Sequence[bytes]:
    """Messages that ask for little."""
    if tier == "gateway":
        part = gateway_pb2.ContentPart(text="Hello?")
        turn = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
        stop = decoder_pb2.StopConditions(max_tokens=1)
        asked = gateway_pb2.ChatRequest(messages=[turn], stop_conditions=stop)
        prepared = gateway_pb2.PrepareRequest(messages=[turn])
        return [asked.SerializeToString(), prepared.SerializeToString()]
    if tier == "vision":
        return [vision_pb2.EncodeRequest(image=b"\x89PNG").SerializeToString()]
    return [decoder_pb2.GenerateRequest(start=_start()).SerializeToString()]


def _start() -> decoder_pb2.GenerateStart:
    """A prompt of three tokens, to be continued by one."""
    positions = to_proto(np.tile(np.arange(3, dtype=np.int32), (3, 1)))
    stop = decoder_pb2.StopConditions(max_tokens=1)
    return decoder_pb2.GenerateStart(
        request_id="damaged", input_ids=[1, 2, 3], position_ids=positions, stop_conditions=stop
    )
