"""Waiting for a cluster without being held by it."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(function: Callable[[], T]) -> T:
    """Runs something that waits for the cluster in a thread, which ends with the process.

    Ray's calls wait as long as its head is away. A thread of asyncio's own would keep the process
    from ending for as long.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # of `function`

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as raised:  # told to whoever waits
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="ray", daemon=True).start()
    return await done
