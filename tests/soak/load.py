"""Mixed load in phases with rests between them, at the pace that the wanted counts need."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from tests.soak.bank import Bank
from tests.soak.cancels import CUTS
from tests.soak.client import Client, Ledger, Wrong
from tests.soak.mixed import KINDS

AT_ONCE = 8
BURST = 3  # of each kind, at the same time
HASTE = 1.15  # a little faster than the counts need, for what comes late
_DUE_KEPT_S = 5.0  # how far behind the pace may fall before what is due is let go


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How many of each are wanted in all."""

    requests: int
    cancelled: int


class Load:
    """What is asked over the whole time.

    Args:
        url: Of the gateway's door.
        bank: What is asked.
        wanted: In all.
        seed: Of everything left to chance.
    """

    def __init__(self, url: str, bank: Bank, wanted: Wanted, seed: int = 0) -> None:
        self.ledger = Ledger()
        self._url, self._bank, self._wanted = url, bank, wanted
        self._rng = random.Random(seed)

    async def work(self, seconds: float, left_s: float) -> None:
        """Asks for some seconds and waits for the last answers; closes every connection.

        Args:
            seconds: Of asking.
            left_s: Seconds of asking that are left in all, these included.
        """
        ledger, wanted = self.ledger, self._wanted
        requests = max(0, wanted.requests - ledger.answered.total())
        cuts = max(0, wanted.cancelled - ledger.cut.total())
        pace = max(1.0, (requests + cuts) / left_s * HASTE)
        share = cuts / (requests + cuts) if requests + cuts else 0.2
        turns = _Turns(pace, time.monotonic() + seconds)
        async with Client(self._url, ledger, self._rng) as client, asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self._ask_in_turn(client, turns, share))

    async def burst(self) -> None:
        """Asks some of every kind at once: pools of threads and processes come to their size."""
        async with self._client() as client, asyncio.TaskGroup() as tasks:
            for name in [*KINDS] * BURST:
                tasks.create_task(self._answered(client, name))

    async def cancel(self, count: int) -> None:
        """Cancels so many streams, as fast as it goes; closes every connection."""
        numbers = iter(range(count))

        async def cut(client: Client) -> None:
            for _ in numbers:
                await self._cut(client)

        async with self._client() as client, asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(cut(client))

    def _client(self) -> Client:
        return Client(self._url, self.ledger, self._rng)

    async def _ask_in_turn(self, client: Client, turns: "_Turns", share: float) -> None:
        while await turns.next():
            if self._rng.random() < share:
                await self._cut(client)
            else:
                weights = [kind.weight for kind in KINDS.values()]
                await self._answered(client, self._rng.choices([*KINDS], weights)[0])

    async def _answered(self, client: Client, name: str) -> None:
        try:
            await KINDS[name].ask(client, self._bank)
        except (Wrong, httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            self.ledger.note(name, f"{type(error).__name__} {error}")
        else:
            self.ledger.answered[name] += 1

    async def _cut(self, client: Client) -> None:
        (name,) = self._rng.choices(list(CUTS), [weight for _, weight in CUTS.values()])
        try:
            cut = await CUTS[name][0](client, self._bank)
        except (Wrong, httpx.HTTPError, OSError, ValueError, LookupError) as error:
            self.ledger.note(name, f"{type(error).__name__} {error}")
        else:
            (self.ledger.cut if cut else self.ledger.late)[name] += 1


class _Turns:
    """When the next request is due, at a steady pace; none is once the time is over."""

    def __init__(self, per_s: float, end_s: float) -> None:
        self._step_s, self._end_s = 1 / per_s, end_s
        self._due_s = time.monotonic()

    async def next(self) -> bool:
        """Returns when it is, and whether there is one."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._step_s, now_s - _DUE_KEPT_S)
        if self._due_s >= self._end_s or now_s >= self._end_s:
            return False
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        return True


async def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether a condition came true in time; it is asked in another thread."""
    end_s = time.monotonic() + timeout_s
    while not await asyncio.to_thread(condition):
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(0.2)
    return True
