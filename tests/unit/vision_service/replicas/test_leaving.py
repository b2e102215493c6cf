"""A cancelled image of a pass that runs: its work stops, its room is free, the others go on."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from kernels import library
from protos.media.images import Grid
from protos.wire.errors import Reason
from tests.support import small_tower
from tests.support.towers import random_pixels
from vision_service.jobs import Encoded, EncodeJob, FloatArray, Patches, error_from_plain
from vision_service.replicas.replica import Replica, ReplicaSettings
from vision_service.towers.members import Members
from vision_service.towers.onnx_tower import OnnxTower

pytestmark = pytest.mark.skipif(library.path() is None, reason="Tandem's operators do not run here")

GRID = Grid(1, 8, 8)
COUNT = 3


class GatedTower:
    """A real tower whose passes begin when the gate opens."""

    computes_all = False

    def __init__(self) -> None:
        self.tower = OnnxTower.load(small_tower.bundle(), form="fast", threads=1)
        self.entered, self.gate = threading.Event(), threading.Event()
        self.passes: list[Members] = []

    def encode(self, batch: Sequence[Patches], members: Members | None = None) -> list[FloatArray]:
        assert members is not None
        self.passes.append(members)
        self.entered.set()
        self.gate.wait()
        return self.tower.encode(batch, members)


@pytest.fixture
def tower() -> Iterator[GatedTower]:
    made = GatedTower()
    yield made
    made.gate.set()


def replica(tower: GatedTower) -> Replica:
    settings = ReplicaSettings(
        bundle="unused",
        device="cpu",
        tower="fast",
        dtype="float32",
        threads=1,
        max_batch_patches=COUNT * GRID.patches,
        max_queued_patches=COUNT * GRID.patches,
        max_image_bytes=1,
        max_image_pixels=1,
        max_image_patches=GRID.patches,
    )
    nothing: Any = None  # patches need no plan and no box
    return Replica(settings, nothing, tower, nothing)


def patches(seed: int) -> Patches:
    return Patches(random_pixels(small_tower.CONFIG, GRID, seed), GRID)


def job(seed: int) -> dict[str, Any]:
    return EncodeJob(source=patches(seed)).to_plain()


async def test_a_cancelled_image_is_computed_no_further_and_its_room_is_free(
    tower: GatedTower,
) -> None:
    held = replica(tower)
    calls = [asyncio.create_task(held.encode(job(seed))) for seed in range(COUNT)]
    await asyncio.to_thread(tower.entered.wait, 10)
    full = error_from_plain(await held.encode(job(9)))
    calls[1].cancel()
    await asyncio.wait({calls[1]})
    late = asyncio.create_task(held.encode(job(9)))  # let in, though the pass still runs
    await asyncio.sleep(0)
    tower.gate.set()
    answers = [Encoded.from_plain(await call) for call in (calls[0], calls[2], late)]
    assert full.reason == Reason.QUEUE_FULL
    for seed, answer in zip((0, 2, 9), answers, strict=True):
        np.testing.assert_array_equal(answer.features, tower.tower.encode([patches(seed)])[0])
    first, second = tower.passes
    assert first.rows_computed[1] == 0
    assert first.rows_computed[0] == first.rows_computed[2] == second.rows_computed[0] > 0
