"""F84: deadlines of 50 ms, over already, none, and of years; the server keeps them by itself."""

import time
from collections.abc import Mapping

from protos.tandem.v1 import decoder_pb2, gateway_pb2
from tests.bench.figures import percentile
from tests.faults.doors import Doors, Found
from tests.faults.frames import Connection

COMPLETE = "/tandem.v1.ChatService/Complete"
LIMIT = 200  # of each deadline
LATE_S = 0.1  # at most, after the deadline
EARLY_S = 0.002  # clocks of both ends are one, but timers are rounded
SHORT = {"0.05 s": ("50m", 0.05), "over already": ("1n", 0.0)}
LONG: Mapping[str, Mapping[str, str]] = {"none": {}, "years": {"grpc-timeout": "99999999S"}}
ENDLESS = 400  # tokens, which take longer than any short deadline
ANSWER_S = 30.0


async def try_deadlines(doors: Doors, count: int = LIMIT) -> Found:
    """A call ends within 100 ms of its deadline; without one it is answered."""
    found = Found()
    async with Connection(doors.grpc["gateway"]) as connection:
        for name, (told, seconds) in SHORT.items():
            late = [await _late(connection, doors, told, seconds) for _ in range(count)]
            worst = max(late)
            found.figures[f"{name}: late, p50 ms"] = round(1e3 * percentile(late, 0.5), 1)
            found.figures[f"{name}: late, most ms"] = round(1e3 * worst, 1)
            found.expect(worst <= LATE_S, f"{name}: {1e3 * worst:.0f} ms after the deadline")
            found.expect(min(late) >= -EARLY_S, f"{name}: a call ended before its deadline")
        for name, more in LONG.items():
            took = await _timed(connection, doors, 1, more)
            found.figures[f"{name}: answered, ms"] = round(1e3 * took, 1)
            found.expect(took < ANSWER_S, f"{name}: answered after {took:.0f} s")
    return found


async def _late(connection: Connection, doors: Doors, told: str, seconds: float) -> float:
    """Seconds from a call's deadline to its end."""
    return await _timed(connection, doors, ENDLESS, {"grpc-timeout": told}) - seconds


async def _timed(
    connection: Connection, doors: Doors, tokens: int, more: Mapping[str, str]
) -> float:
    key, began = {"authorization": f"Bearer {doors.key}"}, time.perf_counter()
    await connection.call(COMPLETE, _asked(tokens), {**key, **more})
    return time.perf_counter() - began


def _asked(tokens: int) -> bytes:
    part = gateway_pb2.ContentPart(text="Tell me everything.")
    turn = gateway_pb2.ChatMessage(role=gateway_pb2.ROLE_USER, content=[part])
    stop = decoder_pb2.StopConditions(max_tokens=tokens, min_tokens=tokens)
    return gateway_pb2.ChatRequest(messages=[turn], stop_conditions=stop).SerializeToString()
