"""F89: two hundred images at once, then ten times what the stack can answer, for a while."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import httpx

from tests.bench.figures import percentile
from tests.faults.doors import CHAT, Doors, Found, Timed, error_fault
from tests.support.prompts import png

LIMIT = 200  # images at once
SECONDS = 20.0  # of each load
# The demonstration's model answers dozens of small images a second on two cores, and ten times as
# many refusals would take those cores from it.
SIZE, TOKENS = (1024, 768), 48
AT_ONCE = 8  # clients that together reach the peak
FACTOR = 10.0  # of the peak
GOODPUT = 0.8  # of the peak, at least
REFUSED_S = 0.1  # at most, 99 of 100


async def try_overload(doors: Doors, count: int = LIMIT, seconds: float = SECONDS) -> Found:
    """Everyone is answered or refused at once, and as many are answered as at the peak."""
    found, doors = Found(), replace(doors, image=png(*SIZE))
    peak = await _peak(doors, seconds)
    _judge("burst", await _at_once(doors, count), found)
    began = time.perf_counter()
    flood = await _paced(doors, FACTOR * peak, seconds)
    took = time.perf_counter() - began
    _judge("overload", flood, found)
    goodput = sum(each.status == 200 for each in flood) / took / peak
    found.figures |= {
        "peak, answers a second": round(peak, 2),
        "overload: share of the peak": round(goodput, 2),
    }
    found.expect(goodput >= GOODPUT, f"overload: {goodput:.0%} of the peak is answered")
    return found


def _judge(name: str, answers: Sequence[Timed], found: Found) -> None:
    counts = Counter(each.status for each in answers)
    refused = [each.seconds for each in answers if each.is_refusal]
    found.figures |= {f"{name}: asked": len(answers), f"{name}: answered": counts[200]}
    found.figures[f"{name}: refused"] = len(refused)
    lost = len(answers) - counts[200] - len(refused)
    found.expect(not lost, f"{name}: {dict(counts)}, {lost} neither answered nor refused")
    if refused:
        worst = percentile(refused, 0.99)
        found.figures[f"{name}: refusal, p50 ms"] = round(1e3 * percentile(refused, 0.5))
        found.figures[f"{name}: refusal, p99 ms"] = round(1e3 * worst)
        found.expect(worst <= REFUSED_S, f"{name}: refusals after {1e3 * worst:.0f} ms")
    wrong = {error_fault(each) for each in answers if each.status != 200}
    found.faults += sorted(fault for fault in wrong if fault is not None)[:3]


async def _peak(doors: Doors, seconds: float) -> float:
    """Answers a second to a few clients that ask again and again."""
    began, answered = time.perf_counter(), Counter[int | str]()

    async def ask() -> None:
        while time.perf_counter() - began < seconds:
            answered[(await _image(doors)).status] += 1

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return answered[200] / (time.perf_counter() - began)


async def _at_once(doors: Doors, count: int) -> Sequence[Timed]:
    return await asyncio.gather(*(_image(doors) for _ in range(count)))


async def _paced(doors: Doors, rate: float, seconds: float) -> Sequence[Timed]:
    """Requests at a steady rate, whatever became of those before."""
    began, asking = time.perf_counter(), list[asyncio.Task[Timed]]()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        asking.append(asyncio.create_task(_image(doors)))
    return await asyncio.gather(*asking)


async def _image(doors: Doors) -> Timed:
    """One image question that no cache has seen, on a connection of its own.

    By hand: at hundreds a second httpx itself would keep a core busy that the services need.
    """
    salt = str(time.perf_counter_ns())
    body = doors.question("What is this?", image=True, cache_salt=salt, max_tokens=TOKENS)
    data = json.dumps(body).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {doors.key}\r\nConnection: close\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    began = time.perf_counter()
    try:
        answer: httpx.Response | str = await _exchanged(doors.port, head.encode() + data)
    except (OSError, ValueError) as error:
        answer = type(error).__name__
    return Timed(answer=answer, seconds=time.perf_counter() - began)


async def _exchanged(port: int, request: bytes) -> httpx.Response:
    """The answer to a request; returns when all of it is there.

    Raises:
        ConnectionError: it did not come.
        ValueError: it is no answer.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        raw = await reader.readuntil(b"\r\n\r\n")
        lines = raw.decode("latin-1").splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        content = await reader.readexactly(int(headers["content-length"]))
    except (asyncio.IncompleteReadError, LookupError) as error:
        raise ConnectionResetError("the answer ended early") from error
    finally:
        writer.close()
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=content)
