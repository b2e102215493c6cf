"""F97: a storm of scrapes, and names from clients in whatever might become a label."""

import asyncio
import time
from collections import Counter

import httpx

from tests.faults.doors import CHAT, Doors, Found

LIMIT = 2_000  # scrapes of each tier, and of requests with names of their own
AT_ONCE = 64


async def try_scrapes(doors: Doors, count: int = LIMIT) -> Found:
    """Every scrape is answered, and no name adds a series."""
    found = Found()
    async with doors.client() as client:
        await _odd(client, "first")  # what is counted at all is there from now on
        before = {place: await _series(client, place) for place in _places(doors)}
        names = iter(range(count))

        async def odd_names() -> None:
            for number in names:
                status = await _odd(client, f"name-{number}")
                found.expect(status == 404, f"model name-{number}: {status}")

        await asyncio.gather(*(odd_names() for _ in range(AT_ONCE // 4)))
        for place in _places(doors):
            began, statuses = time.perf_counter(), await _storm(client, place, count)
            per_s = count / (time.perf_counter() - began)
            found.figures[f"{_name(place)}: scrapes a second"] = round(per_s)
            found.expect(statuses[200] == count, f"{place}: {dict(statuses)}")
        for place in _places(doors):
            more = await _series(client, place) - before[place]
            found.figures[f"{_name(place)}: series"] = len(before[place])
            found.expect(not more, f"{place}: {len(more)} more series, as {sorted(more)[:3]}")
    return found


def _places(doors: Doors) -> list[str]:
    return ["/metrics", *(f"http://127.0.0.1:{port}/metrics" for port in doors.metrics.values())]


def _name(place: str) -> str:
    return "door" if place == "/metrics" else place.split("/")[2]


async def _odd(client: httpx.AsyncClient, name: str) -> int:
    """Names in a model, a path, a header, a user and a method; the status of the first."""
    body = {"model": name, "user": name, "messages": [{"role": "user", "content": "Hello?"}]}
    answer = await client.post(CHAT, json=body, headers={"x-request-id": name, "user-agent": name})
    await client.get(f"/{name}", params={name: name}, headers={"x-api-key": name})
    await client.request(name.upper(), CHAT)
    return answer.status_code


async def _storm(client: httpx.AsyncClient, place: str, count: int) -> Counter[int]:
    numbers, statuses = iter(range(count)), Counter[int]()

    async def scrape() -> None:
        for _ in numbers:
            statuses[(await client.get(place)).status_code] += 1

    await asyncio.gather(*(scrape() for _ in range(AT_ONCE)))
    return statuses


async def _series(client: httpx.AsyncClient, place: str) -> set[str]:
    text = (await client.get(place)).text
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {line.rpartition(" ")[0] for line in lines}
