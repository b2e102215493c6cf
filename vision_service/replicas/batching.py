"""Passes of the tower within one replica: images that wait together are encoded together.

A pass is made of what waits when a thread becomes free; nothing ever waits for company. Which
images it takes, and when a second one runs beside it, is decided in passes.py. The queue is bounded
in patches.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from protos.wire.errors import Overloaded, Reason
from vision_service.jobs import FloatArray, Patches
from vision_service.replicas.passes import (
    Running,
    Waiting,
    is_worth_stopping,
    next_pass,
    pass_beside,
)
from vision_service.scaling.cost import Work
from vision_service.scaling.meter import LoadMeter
from vision_service.towers.members import Abandoned, Members
from vision_service.towers.tower import BatchEncoder

logger = logging.getLogger(__name__)

_FIRST_GUESS_PATCHES_PER_S = 200.0  # until the first pass is measured


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Features of one image, and how long its pass ran, milliseconds."""

    features: FloatArray
    encode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Item(Waiting):
    data: Patches
    done: asyncio.Future[BatchResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    """Images that are encoded together, and which of them have left."""

    items: Sequence[_Item]
    running: Running
    members: Members

    @property
    def wanted_patches(self) -> int:
        return sum(item.patches for item in self.items if not item.done.done())


class PatchBatcher:
    """Feeds the tower. All methods run on the event loop that calls `encode`.

    Args:
        encoder: The tower.
        max_batch_patches: Of one pass; an image alone may have more.
        max_queued_patches: Of all images that wait or are encoded.
        clock: Seconds.
        meter: Told of every pass; None: nobody asks.
    """

    def __init__(
        self,
        encoder: BatchEncoder,
        *,
        max_batch_patches: int,
        max_queued_patches: int,
        clock: Callable[[], float] = time.perf_counter,
        meter: LoadMeter | None = None,
    ) -> None:
        self._encoder = encoder
        self._max_batch_patches = max_batch_patches
        self._max_queued_patches = max_queued_patches
        self._clock = clock
        self._meter = meter or LoadMeter(clock)
        self._waiting: list[_Item] = []
        self._reserved_patches = 0
        self._patches_per_s = _FIRST_GUESS_PATCHES_PER_S
        self._compute = ThreadPoolExecutor(2, thread_name_prefix="tower")
        # The pass that all images get, and the short one that runs beside it.
        self._main: Running | None = None
        self._beside: Running | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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

        Cancelling it drops the image: at once while it waits, before the tower's next block while
        it is encoded; the others of its pass go on without it. A tower that computes all its
        images to the end is stopped instead, where nobody waits for the pass or the others are
        sooner done in another one.
        """
        item = _Item(
            patches=patches.grid.patches,
            arrived_s=self._clock(),
            data=patches,
            done=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(item)
        # Not at once: images that come in the same moment share a pass.
        asyncio.get_running_loop().call_soon(self._schedule)
        return await item.done

    def _schedule(self) -> None:
        """Starts what may run now."""
        self._waiting = [item for item in self._waiting if not item.done.done()]
        if self._main is None and (chosen := self._next()):
            self._main = self._start(chosen, self._end_main)
        if self._main is not None and self._beside is None:
            chosen = pass_beside(
                self._waiting,
                self._main,
                now_s=self._clock(),
                patches_per_s=self._patches_per_s,
                max_patches=self._max_batch_patches,
            )
            if chosen:
                self._beside = self._start(chosen, self._end_beside)

    def _next(self) -> list[_Item]:
        return next_pass(
            self._waiting, patches_per_s=self._patches_per_s, max_patches=self._max_batch_patches
        )

    def _start(self, chosen: Sequence[_Item], end: Callable[[], None]) -> Running:
        self._waiting = [item for item in self._waiting if item not in chosen]
        made = self._pass_of(chosen)
        task = asyncio.create_task(self._run(made))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._settle(done, end))
        return made.running

    def _pass_of(self, items: Sequence[_Item]) -> _Pass:
        patches = sum(item.patches for item in items)
        estimate_s = patches / self._patches_per_s
        made = _Pass(
            items=items,
            running=Running(patches=patches, began_s=self._clock(), estimate_s=estimate_s),
            members=Members(len(items)),
        )
        for index, item in enumerate(items):
            item.done.add_done_callback(partial(self._leave, made, index))
        return made

    def _leave(self, left: _Pass, index: int, done: "asyncio.Future[BatchResult]") -> None:
        """Lets an image that was cancelled leave its pass, or stops the pass."""
        if not done.cancelled():
            return
        left.members.leave(index)
        if self._encoder.computes_all and is_worth_stopping(
            left.running, left.wanted_patches, now_s=self._clock()
        ):
            left.members.abandon()

    def _settle(self, task: "asyncio.Task[None]", end: Callable[[], None]) -> None:
        self._tasks.discard(task)
        end()
        self._schedule()

    def _end_main(self) -> None:
        self._main = None

    def _end_beside(self) -> None:
        self._beside = None

    async def _run(self, current: _Pass) -> None:
        items, running = current.items, current.running
        try:
            features = await self._encode(current)
        except Abandoned:
            self._waiting += [item for item in items if not item.done.done()]
            return
        except Exception as error:  # The pass's edge: what one image did must not fail others.
            await self._isolate(items, error)
            return
        elapsed_s = max(self._clock() - running.began_s, 1e-6)
        if self._measures(current):
            self._patches_per_s = running.patches / elapsed_s
        for item, part in zip(items, features, strict=True):
            if not item.done.done():
                item.done.set_result(BatchResult(part, elapsed_s * 1e3))

    async def _encode(self, current: _Pass) -> list[FloatArray]:
        """Runs the tower in a thread; the meter learns from passes that had it to themselves."""
        number = self._meter.began(Work.sum(Work.of(item.data.grid) for item in current.items))
        measures = False
        try:
            batch = [item.data for item in current.items]
            features = await asyncio.get_running_loop().run_in_executor(
                self._compute, self._encoder.encode, batch, current.members
            )
            measures = self._measures(current)
            return features
        finally:
            self._meter.ended(number, measures=measures)

    def _measures(self, current: _Pass) -> bool:
        """Whether a pass's time says how fast the tower is: of two at once it says little."""
        return self._beside is None and current.members.are_complete

    async def _isolate(self, items: Sequence[_Item], error: Exception) -> None:
        alive = [item for item in items if not item.done.done()]
        if len(items) == 1:
            for item in alive:
                item.done.set_exception(error)
            return
        if alive:
            logger.warning("a pass of %d images failed, encoding each alone", len(items))
        for item in alive:
            await self._run(self._pass_of([item]))
