"""Several streams read as one."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.answer.merge import merged
from protos.wire.errors import Overloaded


async def numbers(*values: int, failing: bool = False) -> AsyncGenerator[int, None]:
    for value in values:
        yield value
    if failing:
        raise Overloaded("full")


async def endless(closed: asyncio.Event) -> AsyncGenerator[int, None]:
    try:
        while True:
            yield 0
    finally:
        closed.set()


async def test_merged_streams_keep_their_own_order() -> None:
    pairs = [pair async for pair in merged([numbers(1, 2, 3), numbers(4, 5), numbers()])]
    assert [value for index, value in pairs if index == 0] == [1, 2, 3]
    assert [value for index, value in pairs if index == 1] == [4, 5]


async def test_one_failing_stream_ends_the_others() -> None:
    closed = asyncio.Event()
    with pytest.raises(Overloaded):
        async for _ in merged([endless(closed), numbers(1, failing=True)]):
            pass
    assert closed.is_set()


async def test_closing_early_closes_every_stream() -> None:
    closed = [asyncio.Event(), asyncio.Event()]
    pairs = merged([endless(event) for event in closed])
    await anext(pairs)
    await pairs.aclose()
    # A stream that never began has nothing to close.
    assert any(event.is_set() for event in closed)
