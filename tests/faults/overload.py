"""F89: two hundred images at once, then ten times what the stack can answer, for a while."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import httpx

from tests.bench.figures import percentile
from tests.faults.doors import Doors, Found, Timed, error_fault, timed

LIMIT = 200  # images at once
SECONDS = 20.0  # of each load
AT_ONCE = 8  # clients that together reach the peak
FACTOR = 10.0  # of the peak
GOODPUT = 0.8  # of the peak, at least
REFUSED_S = 0.1  # at most, 99 of 100


async def try_overload(doors: Doors, count: int = LIMIT, seconds: float = SECONDS) -> Found:
    """Everyone is answered or refused at once, and as many are answered as at the peak."""
    found = Found()
    async with doors.client() as client:
        peak = await _peak(client, doors, seconds)
        burst = await _at_once(client, doors, count)
        _judge("burst", burst, found)
        began = time.perf_counter()
        flood = await _paced(client, doors, FACTOR * peak, seconds)
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
        found.figures[f"{name}: refusal, p99 ms"] = round(1e3 * worst)
        found.expect(worst <= REFUSED_S, f"{name}: refusals after {1e3 * worst:.0f} ms")
    wrong = {error_fault(each) for each in answers if each.status != 200}
    found.faults += sorted(fault for fault in wrong if fault is not None)[:3]


async def _peak(client: httpx.AsyncClient, doors: Doors, seconds: float) -> float:
    """Answers a second to a few clients that ask again and again."""
    began, answered = time.perf_counter(), Counter[int | str]()

    async def ask() -> None:
        while time.perf_counter() - began < seconds:
            answered[(await _image(client, doors)).status] += 1

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return answered[200] / (time.perf_counter() - began)


async def _at_once(client: httpx.AsyncClient, doors: Doors, count: int) -> Sequence[Timed]:
    return await asyncio.gather(*(_image(client, doors) for _ in range(count)))


async def _paced(
    client: httpx.AsyncClient, doors: Doors, rate: float, seconds: float
) -> Sequence[Timed]:
    """Requests at a steady rate, whatever became of those before."""
    began, asking = time.perf_counter(), list[asyncio.Task[Timed]]()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        asking.append(asyncio.create_task(_image(client, doors)))
    return await asyncio.gather(*asking)


async def _image(client: httpx.AsyncClient, doors: Doors) -> Timed:
    """One image question that no cache has seen."""
    salt = str(time.perf_counter_ns())
    body = doors.question("What is this?", image=True, cache_salt=salt, max_tokens=8)
    return await timed(client, body)
