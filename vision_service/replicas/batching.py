"""Dynamic batching within one replica: images that wait together are encoded together.

A batch is whatever waits when the compute thread becomes free, in order of arrival, up to a
budget of patches; nothing ever waits for company. The queue is bounded in patches.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from protos.wire.errors import Overloaded, Reason
from vision_service.jobs import FloatArray, Patches
from vision_service.towers.tower import BatchEncoder

logger = logging.getLogger(__name__)

_FIRST_GUESS_PATCHES_PER_S = 200.0  # until the first batch is measured


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Features of one image, and how long its batch ran, milliseconds."""

    features: FloatArray
    encode_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    patches: Patches
    done: asyncio.Future[BatchResult]


class PatchBatcher:
    """Feeds one compute thread. All methods run on the event loop that calls `encode`."""

    def __init__(
        self, encoder: BatchEncoder, *, max_batch_patches: int, max_queued_patches: int
    ) -> None:
        self._encoder = encoder
        self._max_batch_patches = max_batch_patches
        self._max_queued_patches = max_queued_patches
        self._waiting: deque[_Waiting] = deque()
        self._reserved_patches = 0
        self._patches_per_s = _FIRST_GUESS_PATCHES_PER_S
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="tower")
        self._worker: asyncio.Task[None] | None = None

    @contextmanager
    def reservation(self, patches: int) -> Iterator[None]:
        """Holds room in the queue for one image, from before it is decoded until it is done.

        An image larger than the whole queue is let in when the queue is empty.

        Raises:
            Overloaded: the queue has no room; says when it should have.
        """
        total = self._reserved_patches + patches
        if self._reserved_patches and total > self._max_queued_patches:
            raise Overloaded(
                f"the vision queue holds {self._reserved_patches} patches, at most"
                f" {self._max_queued_patches} may wait",
                reason=Reason.QUEUE_FULL,
                retry_after_s=max(1.0, self._reserved_patches / self._patches_per_s),
            )
        self._reserved_patches = total
        try:
            yield
        finally:
            self._reserved_patches -= patches

    async def encode(self, patches: Patches) -> BatchResult:
        """Encodes one image, together with others where they wait.

        Cancelling it drops the image: at once while it waits, before the tower's next block
        when it is alone in its batch.
        """
        item = _Waiting(patches, asyncio.get_running_loop().create_future())
        self._waiting.append(item)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await item.done

    async def _work(self) -> None:
        try:
            while batch := self._take():
                await self._run(batch)
        finally:
            self._worker = None

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        patches = 0
        while self._waiting:
            item = self._waiting[0]
            if item.done.done():  # cancelled while it waited
                self._waiting.popleft()
                continue
            patches += item.patches.grid.patches
            if batch and patches > self._max_batch_patches:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        started_s = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            features = await loop.run_in_executor(self._compute, self._encode, batch)
        except Exception as error:  # The batch edge: what one image did must not fail others.
            await self._isolate(batch, error)
            return
        elapsed_s = time.perf_counter() - started_s
        self._patches_per_s = sum(item.patches.grid.patches for item in batch) / max(
            elapsed_s, 1e-6
        )
        for item, part in zip(batch, features, strict=True):
            if not item.done.done():
                item.done.set_result(BatchResult(part, elapsed_s * 1e3))

    async def _isolate(self, batch: list[_Waiting], error: Exception) -> None:
        alive = [item for item in batch if not item.done.done()]
        if len(batch) == 1:
            for item in alive:
                item.done.set_exception(error)
            return
        if alive:
            logger.warning("a batch of %d failed, encoding each alone", len(batch))
        for item in alive:
            await self._run([item])

    def _encode(self, batch: list[_Waiting]) -> list[FloatArray]:
        return self._encoder.encode(
            [item.patches for item in batch],
            lambda: all(item.done.done() for item in batch),
        )
