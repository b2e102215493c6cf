"""Noticing that an HTTP client has gone, so that the work for it ends."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.types import Scope

from protos.wire.errors import Reason, ServiceError

T = TypeVar("T")

# Where the server puts a request's `Departure`, among its ASGI extensions.
EXTENSION = "tandem.departure"


class Departure:
    """Whether the client of a request has gone; tells one listener when it does."""

    def __init__(self) -> None:
        self.has_happened = False
        self._listener: Callable[[], object] | None = None

    def happens(self) -> None:
        """The client has gone, and its answer was not complete."""
        self.has_happened = True
        if self._listener is not None:
            self._listener()

    def tell(self, listener: Callable[[], object] | None) -> None:
        """Calls this one when the client goes; None: nobody."""
        self._listener = listener


def client_gone() -> ServiceError:
    """What ends the work for a client that has gone; nobody is left to read it."""
    return ServiceError("the client closed the connection", reason=Reason.CANCELLED)


async def while_connected(scope: Scope, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` as long as the client is there.

    It runs within the caller's task, which is cancelled when the client goes.

    Args:
        scope: Of the request.
        work: For its client.

    Raises:
        ServiceError: CANCELLED, the client has gone; `work` was cancelled and has ended.
    """
    departure: Departure = scope["extensions"][EXTENSION]
    task = asyncio.current_task()
    assert task is not None, "a coroutine is awaited by a task"
    if departure.has_happened:
        work.close()
        raise client_gone()
    departure.tell(task.cancel)
    try:
        return await work
    finally:
        departure.tell(None)
        # Somebody else who cancelled the task meanwhile has the last word.
        if departure.has_happened and not task.uncancel():
            raise client_gone()
