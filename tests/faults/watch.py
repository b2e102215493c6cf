"""What must hold around every row, whatever it does: answers beside it, health, processes, memory.

A canary asks the same question again and again, streamed, with a key of its own: its answer must
stay the same, and no pause within one be long. Health is looked at all the time.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from tests.faults.doors import CHAT, Doors, Found
from tests.soak.load import until
from tests.soak.site import Site

GAP_S = 2.0  # within a canary's answer
HEALTH_S = 1.0
IDLE_S = 5.0  # until nothing is at work any more
RISE = 64 << 20  # of one role's memory, where a row bounds it
PAUSE_S = 0.25
CANARY_TOKENS = 160


@dataclass(slots=True, kw_only=True)
class Canary:
    """What the canary and the looks at health saw."""

    answers: int = 0
    said: str | None = None
    longest_gap_s: float = 0.0
    slowest_health_s: float = 0.0
    faults: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def canary(doors: Doors, key: str) -> AsyncIterator[Canary]:
    """Sings while it is entered, at least once."""
    seen, stop = Canary(), asyncio.Event()
    async with doors.client(key) as client:
        await _sing(client, doors, seen)
        tasks = [
            asyncio.create_task(_while_not(stop, lambda: _sing(client, doors, seen))),
            asyncio.create_task(_while_not(stop, lambda: _look(client, seen))),
        ]
        try:
            yield seen
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def _while_not(stop: asyncio.Event, act: Callable[[], Awaitable[None]]) -> None:
    while not stop.is_set():
        await act()
        await asyncio.sleep(PAUSE_S)


async def _sing(client: httpx.AsyncClient, doors: Doors, seen: Canary) -> None:
    body = doors.question("Tell me everything.", stream=True, seed=1)
    body |= {"max_tokens": CANARY_TOKENS, "min_tokens": CANARY_TOKENS}
    pieces: list[str] = []
    last: float | None = None
    try:
        async with client.stream("POST", CHAT, json=body) as answer:
            async for line in answer.aiter_lines():
                now = time.perf_counter()
                if line.startswith("data: {"):
                    if last is not None:
                        seen.longest_gap_s = max(seen.longest_gap_s, now - last)
                    last = now
                    pieces.append(_piece(line))
    except httpx.HTTPError as error:
        seen.faults.append(f"canary: {type(error).__name__}")
        return
    said = "".join(pieces)
    seen.answers += 1
    if seen.said is None:
        seen.said = said
    if said != seen.said:
        told = f"{answer.status_code} {said[:200]!r}"
        seen.faults.append(f"canary: {told}, before {seen.said[:80]!r}")


def _piece(line: str) -> str:
    event = json.loads(line.removeprefix("data: "))
    if "error" in event:
        return json.dumps(event)
    choices = event.get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


async def _look(client: httpx.AsyncClient, seen: Canary) -> None:
    began = time.perf_counter()
    try:
        answer = await client.get("/health")
    except httpx.HTTPError as error:
        seen.faults.append(f"health: {type(error).__name__}")
        return
    seen.slowest_health_s = max(seen.slowest_health_s, time.perf_counter() - began)
    if answer.status_code != 200:
        seen.faults.append(f"health: {answer.status_code}")


async def watched(
    site: Site, doors: Doors, key: str, row: Callable[[Doors], Awaitable[Found]], *, bounded: bool
) -> Found:
    """Tries a row and looks at everything around it.

    Args:
        site: Of the services.
        doors: What the row is tried at.
        key: The canary's.
        row: What is tried.
        bounded: Whether memory must not rise either.
    """
    await until(lambda: not any(site.at_work().values()), IDLE_S)
    pids, before = dict(site.services), site.holdings()
    async with canary(doors, key) as seen:
        found = await row(doors)
    is_idle = await until(lambda: not any(site.at_work().values()), IDLE_S)
    found.expect(is_idle, f"still at work after {IDLE_S:g} s: {site.at_work()}")
    found.expect(pids == dict(site.services), "a service has another process")
    found.expect(seen.longest_gap_s <= GAP_S, f"canary: a gap of {seen.longest_gap_s:.1f} s")
    slow = f"health took {seen.slowest_health_s:.1f} s"
    found.expect(seen.slowest_health_s <= HEALTH_S, slow)
    found.faults += seen.faults[:3]
    found.figures |= {
        "canary: answers": seen.answers,
        "canary: longest gap, ms": round(1e3 * seen.longest_gap_s),
        "health, most ms": round(1e3 * seen.slowest_health_s),
    }
    for role, held in site.holdings().items():
        rise = held.rss - before[role].rss if role in before else 0
        if rise > 1 << 20:
            found.figures[f"{role}: rise, MiB"] = rise >> 20
        found.expect(not bounded or rise <= RISE, f"{role}: {rise >> 20} MiB more")
    return found
