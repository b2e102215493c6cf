"""Threads for work that is too heavy for the event loop: parsing, tokenizing, image headers."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A bounded pool with a lane of its own for long work, so that short work never waits for it.

    Use as a context manager; what has not begun when it is left never does.
    """

    def __init__(self, count: int) -> None:
        """Makes both lanes: `count` threads for short work, half as many for long."""
        self._short = ThreadPoolExecutor(count, thread_name_prefix="prepare")
        self._long = ThreadPoolExecutor(max(1, count // 2), thread_name_prefix="prepare-long")

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T], *, long: bool = False) -> T:
        """Runs `work` in a thread, so that other streams go on meanwhile.

        Args:
            work: What to run.
            long: Whether it may take longer than a short request should wait.
        """
        pool = self._long if long else self._short
        return await asyncio.get_running_loop().run_in_executor(pool, work)
