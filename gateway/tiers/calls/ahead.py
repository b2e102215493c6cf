"""Messages of a call that are read before anybody asks for them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

M = TypeVar("M")

# Messages of a call that are read ahead of the answer; then the decoder's own waits.
MAX_AHEAD = 256


class NotYet(Exception):
    """No message came in time; the next one is still to come."""


class ReadAhead(Generic[M]):
    """Reads a call to its end, the first message alone until others are wanted.

    One reader takes them. Where its wait is cancelled, no message is lost.

    Args:
        read: Reads one.
        is_last: Whether nothing comes behind one.
    """

    def __init__(self, read: Callable[[], Awaitable[M]], is_last: Callable[[M], bool]) -> None:
        self._read = read
        self._is_last = is_last
        self._there: deque[M] = deque()
        self._all_wanted = False
        self._news: asyncio.Future[None] | None = None  # what the reader waits for
        self._room: asyncio.Future[None] | None = None  # what reading ahead waits for
        self._reading: asyncio.Task[None] | None = None

    def all_wanted(self) -> None:
        """Reads on behind the first message."""
        if not self._all_wanted:
            self._all_wanted = True
            self._make_room()

    async def next(self, within_s: float | None = None) -> M:
        """The next message.

        Args:
            within_s: How long it is waited for; None: for ever.

        Raises:
            NotYet: none came in time.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        if not self._there:
            await self._come(within_s)
        return self._take()

    async def _come(self, within_s: float | None) -> None:
        """Returns when a message is here. `asyncio.timeout` would cost three times as much."""
        loop = asyncio.get_running_loop()
        self._news = loop.create_future()
        timer = None if within_s is None else loop.call_later(within_s, _give_up, self._news)
        try:
            await self._news
        finally:
            if timer is not None:
                timer.cancel()

    def while_there(self, is_wanted: Callable[[M], bool]) -> Iterator[M]:
        """Those that are here already, up to one that is not wanted, which stays."""
        while self._there and is_wanted(self._there[0]):
            yield self._take()

    def stop(self) -> None:
        """Reads no further."""
        if self._reading is not None:
            self._reading.cancel()

    def _take(self) -> M:
        message = self._there.popleft()
        if self._all_wanted:
            self._make_room()
        return message

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _read_all(self) -> None:
        ended = False
        while not ended:
            message = await self._read()
            self._there.append(message)
            if self._news is not None and not self._news.done():
                self._news.set_result(None)
            ended = self._is_last(message)
            while not ended and (len(self._there) >= MAX_AHEAD or not self._all_wanted):
                self._room = asyncio.get_running_loop().create_future()
                await self._room


def _give_up(news: "asyncio.Future[None]") -> None:
    if not news.done():
        news.set_exception(NotYet())
