"""Messages read ahead: in their order, and none lost to a wait that ended."""

import asyncio

import pytest

from gateway.tiers.calls.ahead import NotYet, ReadAhead

pytestmark = pytest.mark.asyncio

LAST = -1


class Source:
    """Messages as they are put."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[int] = asyncio.Queue()
        self.ahead = ReadAhead(self.messages.get, lambda message: message == LAST)


async def test_a_wait_that_ends_in_time_loses_no_message() -> None:
    source = Source()
    for _ in range(2):
        with pytest.raises(NotYet):
            await source.ahead.next(0.01)
    source.messages.put_nowait(1)
    assert await source.ahead.next(20.0) == 1


async def test_a_wait_that_is_cancelled_loses_no_message() -> None:
    source = Source()
    waiting = asyncio.create_task(source.ahead.next())
    await asyncio.sleep(0.01)
    source.messages.put_nowait(1)
    await asyncio.sleep(0)  # the message is under way to who waits
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await source.ahead.next(20.0) == 1


async def test_behind_the_first_message_nothing_is_read_until_it_is_wanted() -> None:
    source = Source()
    for message in (1, 2, 3, LAST):
        source.messages.put_nowait(message)
    assert await source.ahead.next() == 1
    await asyncio.sleep(0.01)
    assert source.messages.qsize() == 3
    source.ahead.all_wanted()
    assert await source.ahead.next() == 2
    await asyncio.sleep(0.01)
    assert list(source.ahead.while_there(lambda message: message != LAST)) == [3]
    assert await source.ahead.next() == LAST


async def test_nothing_is_read_behind_the_last_or_once_it_stops() -> None:
    for stopped in (False, True):
        source = Source()
        source.ahead.all_wanted()
        source.messages.put_nowait(LAST)
        assert await source.ahead.next() == LAST
        if stopped:
            source.ahead.stop()
        source.messages.put_nowait(1)
        await asyncio.sleep(0.01)
        assert source.messages.qsize() == 1
