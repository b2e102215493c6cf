"""Long work beside the event loop that holds nobody when the process ends."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(function: Callable[[], T]) -> T:
    """Runs something that may take long in a thread of its own, which ends with the process.

    A thread of asyncio's own would keep the process from ending for as long: while a model is
    loaded, or Ray waits for its head.
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

    threading.Thread(target=run, name="apart", daemon=True).start()
    return await done
