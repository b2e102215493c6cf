"""A front that waits for a cluster's replicas can be stopped; the encoders' errors are kept."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from protos.process.main import ServiceProcess
from vision_service import app
from vision_service.config import VisionConfig
from vision_service.jobs import EncodersNotStarted

JOINED = VisionConfig(bundle="x", ray_address="auto")


class Encoders:
    """Encoders that start when they are let."""

    def __init__(self, error: Exception | None = None) -> None:
        self.let = asyncio.Event()
        self.cancelled = False
        self._error = error

    async def start(self, *, reclaim_signals: Callable[[], None]) -> None:
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._error is not None:
            raise self._error


async def started(encoders: Any, process: ServiceProcess) -> bool:
    return await app._started(JOINED, process, encoders)


async def test_a_front_that_waits_for_replicas_stops_when_it_is_told() -> None:
    encoders, process = Encoders(), ServiceProcess("vision")
    waiting = asyncio.create_task(started(encoders, process))
    await asyncio.sleep(0)
    process.stop.set()
    assert await waiting is False
    assert encoders.cancelled


async def test_a_front_serves_once_its_encoders_are_there() -> None:
    encoders = Encoders()
    encoders.let.set()
    assert await started(encoders, ServiceProcess("vision")) is True


async def test_what_keeps_encoders_from_starting_is_told() -> None:
    encoders = Encoders(EncodersNotStarted("no room"))
    encoders.let.set()
    with pytest.raises(EncodersNotStarted, match="no room"):
        await started(encoders, ServiceProcess("vision"))
