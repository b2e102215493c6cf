"""Threads for work that is too heavy for the event loop: parsing, tokenizing, image headers."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from typing import TypeVar

T = TypeVar("T")


class Weight(Enum):
    """How long some work may take."""

    LIGHT = auto()  # a millisecond, and no more than five whatever a client sends
    SHORT = auto()  # tens of milliseconds
    LONG = auto()


class Threads:
    """A bounded pool with a lane of its own for long work, so that short work never waits for it.

    Light work is done at once. It would hold the interpreter's lock for as long in a thread, so
    the event loop would wait for it all the same, and for the way there and back.

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

    async def run(self, work: Callable[[], T], weight: Weight = Weight.SHORT) -> T:
        """Runs `work`; in a thread unless it is light, so that other streams go on meanwhile."""
        if weight is Weight.LIGHT:
            return work()
        pool = self._long if weight is Weight.LONG else self._short
        return await asyncio.get_running_loop().run_in_executor(pool, work)
