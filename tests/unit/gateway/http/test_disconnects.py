"""Work for a client ends when the client goes, and for no other reason."""

import asyncio
from typing import Any

import pytest

from gateway.http.disconnects import EXTENSION, Departure, while_connected
from protos.wire.errors import Reason, ServiceError

pytestmark = pytest.mark.asyncio


class Work:
    """Waits for ever; knows whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __call__(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def scope(departure: Departure) -> dict[str, Any]:
    return {"extensions": {EXTENSION: departure}}


async def one() -> int:
    return 1


async def test_a_client_that_goes_cancels_the_work_and_not_the_task() -> None:
    departure, work = Departure(), Work()
    asyncio.get_running_loop().call_later(0.01, departure.happens)
    with pytest.raises(ServiceError) as caught:
        await while_connected(scope(departure), work())
    assert caught.value.reason is Reason.CANCELLED
    assert work.cancelled
    await asyncio.sleep(0)  # the task itself goes on
    task = asyncio.current_task()
    assert task is not None and not task.cancelling()


async def test_for_a_client_that_has_gone_nothing_begins() -> None:
    departure, work = Departure(), Work()
    departure.happens()
    with pytest.raises(ServiceError):
        await while_connected(scope(departure), work())
    assert not work.cancelled


async def test_whoever_cancels_the_task_has_the_last_word() -> None:
    departure = Departure()
    task = asyncio.create_task(while_connected(scope(departure), Work()()))
    await asyncio.sleep(0)
    departure.happens()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_is_done_is_not_told_of_a_client_that_goes_later() -> None:
    departure = Departure()
    assert await while_connected(scope(departure), one()) == 1
    departure.happens()
    await asyncio.sleep(0)
