"""Sends requests when they are due, and keeps what became of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from deploy.load.records import Answer, Record

Ask = Callable[[bytes], Awaitable[Answer]]


class Driver:
    """One load.

    Args:
        ask: Sends a body and returns what became of it; raises nothing but cancellation.
        clock: Seconds, the clock of the answers' moments.
        sleep: Waits for some seconds of that clock.
        on_record: Told each record.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_record: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._sleep = sleep
        self._on_record = on_record
        self.records: list[Record] = []
        self.unfinished = 0  # sent, and stopped before they ended

    async def open_loop(
        self, bodies: Sequence[bytes], arrivals: Sequence[float], *, most: int | None = None
    ) -> None:
        """Sends each body at its moment after the start, whatever became of those before it.

        Args:
            bodies: One for each moment.
            arrivals: Ascending, seconds.
            most: Requests at once; one more waits, and its wait counts.
        """
        places = asyncio.Semaphore(most or len(bodies))
        start = self._clock()
        async with asyncio.TaskGroup() as group:
            for body, offset in zip(bodies, arrivals, strict=True):
                due = start + offset
                if (wait := due - self._clock()) > 0:
                    await self._sleep(wait)
                group.create_task(self._placed(body, due, places))

    async def _placed(self, body: bytes, due: float, places: asyncio.Semaphore) -> None:
        async with places:
            await self._one(body, due)

    async def closed_loop(self, bodies: Sequence[bytes], concurrency: int) -> None:
        """Keeps `concurrency` requests at work until every body is answered."""
        left = iter(bodies)

        async def user() -> None:
            for body in left:
                await self._one(body, self._clock())

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(user())

    async def _one(self, body: bytes, due: float) -> None:
        sent = self._clock()
        try:
            answer = await self._ask(body)
        except asyncio.CancelledError:
            self.unfinished += 1
            raise
        record = Record(due_s=due, sent_s=sent, answer=answer)
        self.records.append(record)
        self._on_record(record)
