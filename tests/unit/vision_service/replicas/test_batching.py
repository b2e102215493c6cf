"""What waits together is encoded together; the queue is bounded; nobody suffers for another."""

import asyncio
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from protos.media.images import Grid
from protos.wire.errors import Overloaded
from tests.unit.vision_service.fakes import FakeTower
from vision_service.jobs import Patches
from vision_service.replicas.batching import BatchResult, PatchBatcher
from vision_service.scaling.meter import LoadMeter


@pytest.fixture
def tower() -> Iterator[FakeTower]:
    fake = FakeTower()
    yield fake
    fake.gate.set()


def batcher_of(
    tower: FakeTower,
    *,
    batch: int = 64,
    queue: int = 256,
    clock: Callable[[], float] = time.perf_counter,
) -> PatchBatcher:
    return PatchBatcher(tower, max_batch_patches=batch, max_queued_patches=queue, clock=clock)


def patches_of(grid: Grid, value: float = 1.0) -> Patches:
    return Patches(np.full((grid.patches, 6), value, dtype=np.float32), grid)


async def until_encoding(tower: FakeTower) -> None:
    await asyncio.to_thread(tower.entered.wait, 10)
    tower.entered.clear()


SMALL = Grid(1, 4, 4)  # 16 patches


def started(batcher: PatchBatcher, *values: float) -> list[asyncio.Task[BatchResult]]:
    return [asyncio.create_task(batcher.encode(patches_of(SMALL, one))) for one in values]


async def test_images_that_wait_are_encoded_together_up_to_the_budget(tower: FakeTower) -> None:
    batcher = batcher_of(tower, batch=40)
    tower.gate.clear()
    first = started(batcher, 0.0)
    await until_encoding(tower)
    rest = started(batcher, 1.0, 2.0, 3.0, 4.0, 5.0)
    await asyncio.sleep(0)
    tower.gate.set()
    await asyncio.gather(*first, *rest)
    assert tower.batches == [[16], [16, 16], [16, 16], [16]]


async def test_everybody_gets_their_own_features(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    results = await asyncio.gather(*started(batcher, *range(12)))
    assert [result.features[0, 0, 0] for result in results] == list(range(1, 13))
    assert all(result.encode_ms > 0 for result in results)


async def test_a_image_larger_than_the_budget_is_encoded_alone(tower: FakeTower) -> None:
    batcher = batcher_of(tower, batch=20)
    large = Grid(1, 8, 8)
    result = await batcher.encode(patches_of(large))
    assert result.features.shape == (2, 16, 4)
    assert tower.batches == [[64]]


async def test_a_full_queue_refuses_and_says_when_to_come_back(tower: FakeTower) -> None:
    batcher = batcher_of(tower, queue=100)
    with batcher.reservation(60):
        with pytest.raises(Overloaded) as caught, batcher.reservation(41):
            pass
        with (
            batcher.reservation(40),  # exactly full
            pytest.raises(Overloaded),
            batcher.reservation(1),
        ):
            pass
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    with batcher.reservation(60), batcher.reservation(40):
        pass  # all of it was given back


async def test_an_empty_queue_lets_in_a_image_larger_than_itself(tower: FakeTower) -> None:
    batcher = batcher_of(tower, queue=10)
    with batcher.reservation(64), pytest.raises(Overloaded), batcher.reservation(1):
        pass


async def test_a_cancelled_image_that_waits_is_never_encoded(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    tower.gate.clear()
    first = started(batcher, 0.0)
    await until_encoding(tower)
    waiting = started(batcher, 1.0, 2.0)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    tower.gate.set()
    results = await asyncio.gather(*first, waiting[1])
    assert tower.batches == [[16], [16]]
    assert results[1].features[0, 0, 0] == 3


async def test_a_batch_nobody_waits_for_is_told_to_stop(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    tower.gate.clear()
    (only,) = started(batcher, 0.0)
    await until_encoding(tower)
    only.cancel()
    await asyncio.wait({only})
    tower.gate.set()
    assert await asyncio.to_thread(tower.saw_abandoned.wait, 10)
    assert (await batcher.encode(patches_of(SMALL, 4.0))).features[0, 0, 0] == 5


async def test_a_image_that_breaks_its_batch_fails_alone(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    tower.gate.clear()
    first = started(batcher, 0.0)
    await until_encoding(tower)
    mates = started(batcher, 1.0, -1.0, 2.0)
    await asyncio.sleep(0)
    tower.gate.set()
    good, bad, other = await asyncio.gather(*mates, return_exceptions=True)
    await asyncio.gather(*first)
    assert isinstance(bad, ValueError)
    assert isinstance(good, BatchResult)
    assert isinstance(other, BatchResult)
    assert other.features[0, 0, 0] == 3


async def test_the_batcher_works_again_after_it_was_idle(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    for value in (1.0, 2.0):
        result = await batcher.encode(patches_of(SMALL, value))
        assert result.features[0, 0, 0] == value + 1


HUGE = Grid(1, 16, 16)  # 256 patches


async def test_a_small_image_is_encoded_while_a_huge_one_is(tower: FakeTower) -> None:
    batcher = batcher_of(tower)
    tower.gate.clear()
    huge = asyncio.create_task(batcher.encode(patches_of(HUGE)))
    await until_encoding(tower)
    small = started(batcher, 1.0)
    await until_encoding(tower)
    tower.gate.set()
    await asyncio.gather(huge, *small)
    assert tower.batches == [[256], [16]]


async def test_a_pass_is_begun_again_without_an_image_that_was_most_of_it(
    tower: FakeTower,
) -> None:
    batcher = batcher_of(tower, batch=512, clock=lambda: 0.0)
    tower.gate.clear()
    small = started(batcher, 1.0)
    huge = asyncio.create_task(batcher.encode(patches_of(HUGE)))
    await until_encoding(tower)
    huge.cancel()
    await asyncio.wait({huge})
    tower.gate.set()
    (result,) = await asyncio.gather(*small)
    assert result.features[0, 0, 0] == 2
    assert tower.batches == [[16, 256], [16]]


async def test_a_pass_goes_on_without_an_image_that_was_little_of_it(tower: FakeTower) -> None:
    now_s = 0.0
    batcher = batcher_of(tower, batch=512, clock=lambda: now_s)
    tower.gate.clear()
    (small,) = started(batcher, 1.0)
    huge = asyncio.create_task(batcher.encode(patches_of(HUGE)))
    await until_encoding(tower)
    now_s = 0.5  # of 1.36 s; the huge one alone would take 1.28 s
    small.cancel()
    await asyncio.wait({small})
    tower.gate.set()
    await huge
    assert tower.batches == [[16, 256]]


async def test_an_image_leaves_its_pass_and_the_others_are_not_encoded_again() -> None:
    tower, meter = FakeTower(computes_all=False), LoadMeter(time.perf_counter)
    batcher = PatchBatcher(tower, max_batch_patches=512, max_queued_patches=512, meter=meter)
    before = meter.fit
    tower.gate.clear()
    (small,) = started(batcher, 1.0)
    huge = asyncio.create_task(batcher.encode(patches_of(HUGE)))
    await until_encoding(tower)
    huge.cancel()
    await asyncio.wait({huge})
    tower.gate.set()
    assert (await small).features[0, 0, 0] == 2
    assert (tower.batches, tower.remained) == ([[16, 256]], [[0]])
    assert meter.fit is before  # a pass that became shorter says nothing of the tower's speed
