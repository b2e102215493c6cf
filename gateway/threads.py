"""Threads for work that is too heavy for the event loop: parsing, tokenizing, image headers."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A bounded pool. Use as a context manager; what has not begun when it is left never does."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="prepare")

    def __enter__(self) -> "Threads":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in a thread, so that other streams go on meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)
