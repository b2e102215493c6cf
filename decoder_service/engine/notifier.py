"""A thread for what the engine's thread and the event loop have no time for.

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
    """Runs errands one after the other, above all calls on an event loop."""

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="postman", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins; calls go to `loop`."""
        self._loop = loop
        self._thread.start()

    def send(self, errand: Call) -> None:
        """Has a function called on this thread, which must not fail."""
        self._errands.put(errand)

    def call(self, function: Call) -> None:
        """Has a function called on the loop; returns at once and keeps the interpreter."""
        self._errands.put(lambda: self._wake(function))

    def stop(self) -> None:
        """Waits until all errands so far are done."""
        self._errands.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand()

    def _wake(self, function: Call) -> None:
        assert self._loop is not None, "set at the start"
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: nobody listens any more
            logger.debug("a call came after the event loop had closed")
