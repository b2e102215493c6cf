"""Noticing that an HTTP client has gone, so that the work for it ends."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from protos.wire.errors import Reason, ServiceError

T = TypeVar("T")


def client_gone() -> ServiceError:
    """What ends the work for a client that has gone; nobody is left to read it."""
    return ServiceError("the client closed the connection", reason=Reason.CANCELLED)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` as long as the client is there, whose body must have been read.

    Raises:
        ServiceError: CANCELLED, the client has gone; `work` was cancelled and has ended.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise client_gone()
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
