"""Encoder replicas: their own order of passes; what a pass takes is a cost model's."""

from collections.abc import Callable
from dataclasses import dataclass

from planner.costs import Costs
from planner.simulation.clock import Clock
from vision_service.replicas.passes import Running, Waiting, next_pass, pass_beside

Done = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Image(Waiting):
    """An image that waits or is encoded; `done` is called when it is."""

    done: Done


class ImageQueue:
    """The images that wait for a tower, and its pace as its batcher knows it.

    Args:
        costs: The machine's.
    """

    def __init__(self, costs: Costs) -> None:
        self.waiting: list[Image] = []
        self.patches_per_s = costs.max_batch_patches / costs.encode.seconds(costs.max_batch_patches)
        self._costs = costs

    def add(self, patches: int, now: float, done: Done) -> None:
        """One image more waits."""
        self.waiting.append(Image(patches=patches, arrived_s=now, done=done))

    def next(self) -> list[Image]:
        """The images of the next pass, which wait no longer."""
        return self._taken(
            next_pass(
                self.waiting,
                patches_per_s=self.patches_per_s,
                max_patches=self._costs.max_batch_patches,
            )
        )

    def beside(self, running: Running, now: float) -> list[Image]:
        """Those of a pass that may run while a long one does, which wait no longer."""
        return self._taken(
            pass_beside(
                self.waiting,
                running,
                now_s=now,
                patches_per_s=self.patches_per_s,
                max_patches=self._costs.max_batch_patches,
            )
        )

    def seconds(self, images: list[Image]) -> float:
        """What a pass of some images takes when nothing runs beside it."""
        return self._costs.encode.seconds(*(image.patches for image in images))

    def _taken(self, chosen: list[Image]) -> list[Image]:
        for image in chosen:
            self.waiting.remove(image)
        return chosen


@dataclass(slots=True, kw_only=True)
class _Pass:
    images: list[Image]
    running: Running
    left_s: float  # of its own time, as if it ran alone


class Replica:
    """One encoder replica: at most two passes, which share its cores evenly.

    Args:
        clock: The simulation's.
        costs: The machine's.

    Attributes:
        reserved: Patches of all images it has.
        given: Images so far.
        given_s: Seconds they took or take.
        busy_s: Seconds in which it computed.
    """

    def __init__(self, clock: Clock, costs: Costs) -> None:
        self.reserved = 0
        self._waiting_s = 0.0  # of images that no pass has yet
        self.given = 0
        self.given_s = 0.0
        self.busy_s = 0.0
        self._clock = clock
        self._costs = costs
        self._queue = ImageQueue(costs)
        self._passes: list[_Pass] = []  # the first is the one that all images get
        self._advanced = 0.0
        self._version = 0

    def submit(self, patches: int, done: Done) -> bool:
        """Takes an image, which is preprocessed first; False when the queue is full."""
        if self.reserved and self.reserved + patches > self._costs.max_queued_patches:
            return False
        seconds = self._costs.encode.seconds(patches)
        self.reserved += patches
        self._waiting_s += seconds
        self.given += 1
        self.given_s += seconds

        def ended() -> None:
            self.reserved -= patches
            done()

        prepared = self._clock.now + self._costs.preprocess.seconds(patches)
        self._clock.at(prepared, lambda: self._arrive(patches, ended))
        return True

    @property
    def waiting_s(self) -> float:
        """Seconds of the images that no pass has yet, each in one of its own."""
        return self._waiting_s

    @property
    def running_s(self) -> float:
        """Seconds until the passes that run are through."""
        left = sum(one.left_s for one in self._passes)
        return max(0.0, left - (self._clock.now - self._advanced))

    def _arrive(self, patches: int, done: Done) -> None:
        self._queue.add(patches, self._clock.now, done)
        self._advance()
        self._schedule()

    def _advance(self) -> None:
        """Notes what has been computed since the last look."""
        passed = self._clock.now - self._advanced
        self._advanced = self._clock.now
        if self._passes:
            self.busy_s += passed
        for one in self._passes:
            one.left_s -= passed / len(self._passes)

    def _schedule(self) -> None:
        """Starts what may run now, as `PatchBatcher` does, and says when the next pass ends."""
        if not self._passes and (chosen := self._queue.next()):
            self._start(chosen)
        if len(self._passes) == 1:
            chosen = self._queue.beside(self._passes[0].running, self._clock.now)
            if chosen:
                self._start(chosen)
        self._version += 1
        if self._passes:
            version = self._version
            left = min(one.left_s for one in self._passes) * len(self._passes)
            self._clock.at(self._clock.now + max(0.0, left), lambda: self._end(version))

    def _start(self, images: list[Image]) -> None:
        patches = sum(image.patches for image in images)
        self._waiting_s -= sum(self._costs.encode.seconds(image.patches) for image in images)
        running = Running(
            patches=patches,
            began_s=self._clock.now,
            estimate_s=patches / self._queue.patches_per_s,
        )
        self._passes.append(
            _Pass(images=images, running=running, left_s=self._queue.seconds(images))
        )

    def _end(self, version: int) -> None:
        if version != self._version:
            return
        self._advance()
        ended = min(self._passes, key=lambda one: one.left_s)
        self._passes.remove(ended)
        if not self._passes:  # two passes at once say little of what one takes
            took = max(1e-6, self._clock.now - ended.running.began_s)
            self._queue.patches_per_s = ended.running.patches / took
        for image in ended.images:
            image.done()
        self._schedule()


def _finish_s(replica: Replica) -> float:
    return replica.waiting_s + replica.running_s


class Encoders:
    """The replicas of a tier, which may grow and shrink.

    Args:
        clock: The simulation's.
        costs: Of every replica.
        count: How many there are at first.

    Attributes:
        replicas: Those that take images.
    """

    def __init__(self, clock: Clock, costs: Costs, *, count: int) -> None:
        self.replicas = [Replica(clock, costs) for _ in range(count)]
        self._left = list[Replica]()
        self._clock = clock
        self._costs = costs
        self._unassigned: list[tuple[int, Done]] = []  # while there is no replica

    @property
    def busy_s(self) -> float:
        """Seconds in which replicas computed, of all of them together."""
        return sum(replica.busy_s for replica in (*self.replicas, *self._left))

    @property
    def unassigned(self) -> int:
        """Images that wait for the first replica."""
        return len(self._unassigned)

    def submit(self, patches: int, done: Done) -> bool:
        """Gives an image to the replica that should finish it first; False where that is full."""
        if not self.replicas:
            self._unassigned.append((patches, done))
            return True
        return min(self.replicas, key=_finish_s).submit(patches, done)

    def grow(self) -> None:
        """One replica more is ready."""
        self.replicas.append(Replica(self._clock, self._costs))
        waiting, self._unassigned = self._unassigned, []
        for patches, done in waiting:
            self.submit(patches, done)

    def shrink(self) -> None:
        """One replica less, that with the least to do; it ends what it has."""
        least = min(self.replicas, key=_finish_s)
        self.replicas.remove(least)
        self._left.append(least)
