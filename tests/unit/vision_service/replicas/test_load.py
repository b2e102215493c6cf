"""A replica says what it holds, while it holds it, and learns from its passes how fast it is."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from protos.media.images import Grid
from tests.unit.vision_service.fakes import FakeTower
from vision_service.jobs import EncodeJob, Patches
from vision_service.replicas.replica import Replica, ReplicaSettings
from vision_service.scaling.cost import START

GRID = Grid(1, 8, 8)


@pytest.fixture
def tower() -> Iterator[FakeTower]:
    fake = FakeTower()
    yield fake
    fake.gate.set()


def replica(tower: FakeTower) -> Replica:
    settings = ReplicaSettings(
        bundle="unused",
        device="cpu",
        tower="auto",
        dtype="float32",
        threads=1,
        max_batch_patches=64,
        max_queued_patches=1024,
        max_image_bytes=1,
        max_image_pixels=1,
        max_image_patches=1024,
    )
    nothing: Any = None  # patches need no plan and no box
    return Replica(settings, nothing, tower, nothing)


def job(number: int) -> dict[str, Any]:
    pixels = np.zeros((GRID.patches, 6), np.float32)
    plain = EncodeJob(source=Patches(pixels, GRID)).to_plain()
    return {**plain, "ticket": ("front", number)}


async def test_work_is_reported_while_it_waits_and_runs_and_not_after(tower: FakeTower) -> None:
    held = replica(tower)
    tower.gate.clear()
    calls = [asyncio.create_task(held.encode(job(number))) for number in (3, 4)]
    await asyncio.to_thread(tower.entered.wait, 10)
    busy = held.reporter.for_policy()
    assert busy["waiting_s"] == pytest.approx(busy["image_s"])  # one runs, one waits
    assert busy["running_s"] > 0 and busy["offered"] > 0
    assert held.reporter.for_routers()["seen"] == {"front": 4}
    tower.gate.set()
    answers = await asyncio.gather(*calls)
    assert all("features" in answer for answer in answers)
    idle = held.reporter.for_policy()
    assert (idle["waiting_s"], idle["running_s"]) == (0.0, 0.0)


async def test_passes_say_how_fast_the_replica_is(tower: FakeTower) -> None:
    held = replica(tower)
    before = held.reporter.for_routers()
    assert (before["patch_s"], before["pair_s"]) == (START.patch_s, START.pair_s)
    await held.encode(job(1))
    assert held.reporter.for_routers()["patch_s"] < START.patch_s
