"""Calls on the event loop, made by a thread of their own.

Waking an event loop gives the interpreter away, and it comes back when the loop is through: half a
millisecond later when eight streams have got a token. A caller that has better to do leaves the
waking to this thread, which gets the interpreter when the caller leaves it.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

Call = Callable[[], None]


class Postman:
    """Brings calls from one thread to an event loop, in order."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to bring calls to `loop`."""
        self._thread = threading.Thread(
            target=self._bring, args=(loop,), name="postman", daemon=True
        )
        self._thread.start()

    def call(self, function: Call) -> None:
        """Has a function called on the loop; returns at once and keeps the interpreter."""
        self._calls.put(function)

    def stop(self) -> None:
        """Waits until all calls so far are with the loop."""
        assert self._thread is not None, "it was not started"
        self._calls.put(None)
        self._thread.join()

    def _bring(self, loop: asyncio.AbstractEventLoop) -> None:
        while (function := self._calls.get()) is not None:
            try:
                loop.call_soon_threadsafe(function)
            except RuntimeError:  # the loop is closed: nobody listens any more
                logger.debug("a call came after the event loop had closed")
