"""Two attempts at one call: the second begins when the first failed or stays silent too long."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

from gateway.fleet.router import Endpoint
from protos.wire.errors import ServiceError


class Racer(Protocol):
    """An attempt that has been made."""

    endpoint: Endpoint

    async def begin(self) -> None:
        """Returns when the attempt has what the race is for; raises ServiceError."""

    def close(self) -> None:
        """Ends the attempt; called once."""


R = TypeVar("R", bound=Racer)


class Race(Generic[R]):
    """Finds the first of at most two attempts that has begun.

    Args:
        open_at: Makes an attempt, at an address other than those given where there is one.
        patience_s: How long a first attempt is waited for alone.
        may_retry: Whether a failure, or silence where None, may be followed by a second attempt;
            counts it if so.
    """

    def __init__(
        self,
        open_at: Callable[[Collection[Endpoint]], Awaitable[R]],
        *,
        patience_s: Callable[[R], float],
        may_retry: Callable[[ServiceError | None], bool],
    ) -> None:
        self._open_at = open_at
        self._patience_s = patience_s
        self._may_retry = may_retry
        self._running: dict[asyncio.Task[None], R] = {}
        self.waited_s = float("inf")  # for the first attempt alone, at most
        self.is_won = False
        self.left_behind: Endpoint | None = None  # still silent when the second attempt won

    @asynccontextmanager
    async def winner(self) -> AsyncIterator[R]:
        """The attempt that has begun first; leaving the block ends every call.

        Raises:
            ServiceError: the last attempt's failure.
        """
        winner: R | None = None
        try:
            winner = await self._winner()
            self.is_won = True
            yield winner
        finally:
            tasks = list(self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for attempt in (*self._running.values(), *(() if winner is None else (winner,))):
                attempt.close()

    async def _winner(self) -> R:
        first = await self._start(())
        self.waited_s = self._patience_s(first)
        outcome = await self._outcome(self.waited_s)
        if (outcome is None or isinstance(outcome, ServiceError)) and self._may_retry(outcome):
            try:
                await self._start((first.endpoint,))
            except ServiceError:  # nobody else is ready, but the first may still answer
                if outcome is not None:
                    raise
            outcome = await self._outcome(None)
        elif outcome is None:
            outcome = await self._outcome(None)
        assert outcome is not None, "without a limit there is one"
        if isinstance(outcome, ServiceError):
            raise outcome
        if first in self._running.values() and outcome.endpoint is not first.endpoint:
            self.left_behind = first.endpoint
        return outcome

    async def _start(self, avoid: Collection[Endpoint]) -> R:
        attempt = await self._open_at(avoid)
        self._running[asyncio.create_task(attempt.begin())] = attempt
        return attempt

    async def _outcome(self, within_s: float | None) -> R | ServiceError | None:
        """The first attempt that has begun, else the last one's failure; None: time is over."""
        failure: ServiceError | None = None
        by_s = None if within_s is None else time.monotonic() + within_s
        while self._running:
            left_s = None if by_s is None else max(0.0, by_s - time.monotonic())
            done, _ = await asyncio.wait(
                self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return None
            for task in done:
                attempt = self._running.pop(task)
                error = task.exception()
                if error is None:
                    return attempt
                attempt.close()
                if not isinstance(error, ServiceError):
                    raise error
                failure = error
        return failure
