"""Several streams read as one: the choices of a request with n > 1."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    index: int
    value: T


async def merged(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """Yields (stream index, item) as items come; the first failure ends all streams.

    Each stream runs at most one item ahead of the reader.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as stream:
            async for value in stream:
                yield 0, value
        return
    # Items, the failure of a stream, or None for a stream that ended.
    queue: asyncio.Queue[_Item[T] | Exception | None] = asyncio.Queue(maxsize=1)
    pumps = [asyncio.create_task(_pump(queue, at, stream)) for at, stream in enumerate(streams)]
    running = len(pumps)
    try:
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item.index, item.value
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    queue: "asyncio.Queue[_Item[T] | Exception | None]", index: int, stream: AsyncGenerator[T, None]
) -> None:
    try:
        async with aclosing(stream):
            async for value in stream:
                await queue.put(_Item(index, value))
        await queue.put(None)
    except Exception as error:  # Not a boundary: it is raised again where the queue is read.
        await queue.put(error)
