"""The client's programme: `python -m tests.chaos.load JOB`, in the client's host.

JOB is a JSON file: `gateways` (URLs that end in /v1), `authority` (PEM), `key`, `at_once` by kind,
and `questions` as in questions.py. Every kind's workers ask its questions in turn, at the gateways
that are ready in turn, until standard input ends. Each line of output is an `Answer` of answers.py,
or a `Look`. A request that loses its gateway is told of, and asked of another.
"""

import asyncio
import contextlib
import itertools
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

LOOK_INTERVAL_S = 0.25
LOOK_TIMEOUT_S = 5.0
PATIENCE_S = 300.0  # beside this, a request that hangs is a failure
REFUSED_PAUSE_S = 0.2
# One request in so many may be answered from what is cached; the others have a salt of their own.
CACHED_SHARE = 4


class Client:
    """Asks and tells."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"Authorization": f"Bearer {job['key']}"}
        timeout = httpx.Timeout(PATIENCE_S)
        verify = ssl.create_default_context(cafile=job["authority"])
        self._http = httpx.AsyncClient(
            headers=headers, limits=limits, timeout=timeout, verify=verify
        )
        self._numbers = itertools.count()
        self._ending = asyncio.Event()
        self._ready = dict.fromkeys(job["gateways"], True)

    async def run(self) -> None:
        """Asks until standard input ends, then waits for what runs."""
        async with self._http, asyncio.TaskGroup() as tasks:
            for kind, workers in self._job["at_once"].items():
                asked = itertools.cycle([q for q in self._job["questions"] if q["kind"] == kind])
                for _ in range(workers):
                    tasks.create_task(self._work(asked))
            for gateway in self._job["gateways"]:
                tasks.create_task(self._look(gateway))
            await asyncio.to_thread(sys.stdin.read)
            self._ending.set()

    async def _work(self, asked: Iterator[dict[str, Any]]) -> None:
        while not self._ending.is_set():
            await self._ask(next(asked))

    async def _ask(self, question: dict[str, Any]) -> None:
        """One question, at one gateway after the other until one has said anything about it."""
        number = next(self._numbers)
        body = dict(question["body"])
        if number % CACHED_SHARE:
            body["cache_salt"] = f"salt {number}"
        for turn in itertools.count(number):
            gateway = self._gateway(turn)
            told: dict[str, Any] = {"kind": question["kind"], "name": question["name"]}
            told |= {
                "gateway": gateway,
                "began_s": time.monotonic(),
                "error": None,
                "connection": None,
            }
            try:
                told |= await self._answer(gateway, body)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                told |= {"error": repr(error), "connection": "refused"}
            except httpx.TransportError as error:
                told |= {"error": repr(error), "connection": "lost"}
            tell(told | {"ended_s": time.monotonic()})
            if told["connection"] is None:
                return
            await asyncio.sleep(REFUSED_PAUSE_S)

    def _gateway(self, turn: int) -> str:
        """Whose turn it is among those that want requests, as a balancer does it."""
        every: list[str] = self._job["gateways"]
        ready = [each for each in every if self._ready[each]] or every
        return ready[turn % len(ready)]

    async def _answer(self, gateway: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{gateway}/chat/completions"
        async with self._http.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                return {"error": f"{response.status_code} {text}"}
            if body.get("stream"):
                return await streamed(response.aiter_lines())
            choice = json.loads(await response.aread())["choices"][0]
        return {"text": choice["message"]["content"], "finish": choice["finish_reason"]}

    async def _look(self, gateway: str) -> None:
        """Tells again and again what a gateway finds of the tiers."""
        door = gateway.removesuffix("/v1")
        while not self._ending.is_set():
            tiers: dict[str, dict[str, int]] = {}
            ready = False
            with contextlib.suppress(httpx.TransportError):
                health = await self._http.get(f"{door}/health/ready", timeout=LOOK_TIMEOUT_S)
                ready = health.status_code == 200
                response = await self._http.get(f"{door}/metrics", timeout=LOOK_TIMEOUT_S)
                tiers = conditions(response.text)
            self._ready[gateway] = ready
            tell({"gateway": gateway, "at_s": time.monotonic(), "tiers": tiers})
            await asyncio.sleep(LOOK_INTERVAL_S)


async def streamed(lines: AsyncIterator[str]) -> dict[str, Any]:
    """The text of a stream of events, how it ended, and its longest pause in seconds."""
    told: dict[str, Any] = {"text": "", "finish": None, "pause_s": 0.0}
    last_s = time.monotonic()
    async for line in lines:
        if not line.startswith("data: {"):
            continue
        now_s = time.monotonic()
        told["pause_s"], last_s = max(told["pause_s"], now_s - last_s), now_s
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            return told | {"error": json.dumps(event["error"])}
        for choice in event["choices"]:
            told["text"] += choice["delta"].get("content") or ""
            told["finish"] = choice["finish_reason"] or told["finish"]
    return told


def conditions(metrics: str) -> dict[str, dict[str, int]]:
    """How many addresses of each tier are in which state, from Prometheus' text."""
    found: dict[str, dict[str, int]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "tandem:gateway_tier_addresses" and sample.value:
                states = found.setdefault(sample.labels["tier"], {})
                states[sample.labels["state"]] = int(sample.value)
    return found


def tell(what: dict[str, Any]) -> None:
    """One line of output."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(Client(json.loads(Path(sys.argv[1]).read_text())).run())
