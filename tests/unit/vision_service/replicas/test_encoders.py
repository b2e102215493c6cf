"""Calls to replicas: retries, and errors in our own words. Serve's handle is a fake."""

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import ray

from protos.media.images import Grid
from protos.wire.errors import InvalidRequest, Reason, Unavailable
from vision_service.config import VisionConfig
from vision_service.jobs import EncodeJob, Patches
from vision_service.replicas.reaper import Reaper
from vision_service.routing.desk import Desk
from vision_service.scaling.cost import Cost
from vision_service.scaling.placement import Report

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pydantic, about Ray's own classes
    from vision_service.replicas import encoders as module
    from vision_service.replicas.encoders import RayEncoders

GRID = Grid(1, 2, 2)
JOB = EncodeJob(source=Patches(np.zeros((4, 6), np.float32), GRID))
FEATURES = {"grid": tuple(GRID), "features": np.zeros((1, 1, 4), np.float32), "summary": {}}

Answer = Callable[[str], Awaitable[dict[str, Any]]]


class Response:
    """As Serve's: awaited, or cancelled."""

    def __init__(self, answer: Awaitable[dict[str, Any]]) -> None:
        self._task = asyncio.ensure_future(answer)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


class Tier:
    """A handle whose replicas answer as told, and a desk on which they are placed at once."""

    def __init__(self, desk: Desk, *replicas: str) -> None:
        self.desk = desk
        desk.replicas(replicas)
        for replica in replicas:
            cost = Cost(patch_s=1e-3, pair_s=0.0)
            desk.heard(replica, Report(beat=1, ahead_s=0.0, cost=cost))
        self.asked: list[str] = []
        self.answer: Answer = self.encoded

    @property
    def encode(self) -> "Tier":
        return self

    def remote(self, plain: dict[str, Any]) -> Response:
        order = self.desk.choose(plain["ticket"][1], ahead_s=1e9) or ["nobody"]
        self.asked.append(order[0])
        return Response(self.answer(order[0]))

    async def encoded(self, replica: str) -> dict[str, Any]:
        return FEATURES

    async def never(self, replica: str) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def leaves(self, replica: str) -> dict[str, Any]:
        raise asyncio.CancelledError

    async def dies(self, replica: str) -> dict[str, Any]:
        raise ray.exceptions.ActorDiedError()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk()
    monkeypatch.setattr(module, "DESK", made)
    monkeypatch.setattr(module, "_LOOK_S", 0.01)
    yield made


def encoders(tier: Tier) -> RayEncoders:
    made = RayEncoders(VisionConfig(bundle="x", tier_wait_s=0.05), Reaper(pid=0, pipe=-1))
    made._handle = tier
    return made


async def test_an_image_whose_replica_dies_goes_to_another_one(desk: Desk) -> None:
    tier = Tier(desk, "a", "b")

    async def first_dies(replica: str) -> dict[str, Any]:
        return await (tier.dies if len(tier.asked) == 1 else tier.encoded)(replica)

    tier.answer = first_dies
    assert (await encoders(tier).encode(JOB)).grid == GRID
    assert sorted(tier.asked) == ["a", "b"]


async def test_an_image_whose_replica_leaves_goes_to_another_one_and_is_not_to_blame(
    desk: Desk,
) -> None:
    tier = Tier(desk, "a", "b")

    async def first_leaves(replica: str) -> dict[str, Any]:
        return await (tier.leaves if len(tier.asked) % 2 else tier.encoded)(replica)

    tier.answer = first_leaves
    for _ in range(3):
        assert (await encoders(tier).encode(JOB)).grid == GRID
    assert len(tier.asked) == 6


async def test_an_image_that_ends_two_replicas_is_refused_and_then_not_tried(desk: Desk) -> None:
    tier = Tier(desk, "a", "b")
    tier.answer = tier.dies
    calling = encoders(tier)
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await calling.encode(JOB)
    assert len(tier.asked) == 2


async def test_a_tier_without_replicas_is_waited_for_as_long_as_set(desk: Desk) -> None:
    tier = Tier(desk)
    tier.answer = tier.never
    with pytest.raises(Unavailable) as caught:
        await encoders(tier).encode(JOB)
    assert caught.value.reason is Reason.VISION_UNAVAILABLE
    assert caught.value.retry_after_s == 1.0


async def test_a_call_that_ends_is_forgotten(desk: Desk) -> None:
    tier = Tier(desk, "a")
    await encoders(tier).encode(JOB)
    tier.answer = tier.never
    call = asyncio.ensure_future(encoders(tier).encode(JOB))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert desk._tickets == {}
