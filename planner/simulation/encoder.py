"""Encoder replicas: their own order of passes and the front's placement, over a cost model."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.costs import Costs
from planner.simulation.clock import Clock
from planner.simulation.core import Core, Job
from vision_service.replicas.passes import Running, Waiting, next_pass, pass_beside
from vision_service.scaling.cost import Cost, Work
from vision_service.scaling.placement import Outlook, in_order, most_ahead_s

Done = Callable[[], None]

# So much later than a replica's limit is reached it has surely been, sums of floats or not.
_ROUNDING_S = 1e-9


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


@dataclass(slots=True, kw_only=True, eq=False)
class _Pass:
    images: list[Image]
    running: Running
    job: Job


class Replica:
    """One encoder replica: at most two passes, which share its cores evenly.

    Args:
        clock: The simulation's.
        costs: The machine's.
        core: Where it runs beside others, and files are decoded too; None: on its own.
        on_change: Told when what it has to do has changed.

    Attributes:
        reserved: Patches of all images it has.
        given: Images so far.
        given_s: Seconds they took or take.
        waiting_s: Seconds of images that no pass has yet, each in one of its own.
    """

    def __init__(
        self,
        clock: Clock,
        costs: Costs,
        *,
        core: Core | None = None,
        on_change: Callable[["Replica"], None] = lambda replica: None,
    ) -> None:
        self.reserved = 0
        self.given = 0
        self.given_s = 0.0
        self.waiting_s = 0.0
        self._ended_s = 0.0  # of passes
        self._clock = clock
        self._costs = costs
        self._is_shared = core is not None
        self._core = core or Core(clock)
        self._on_change = on_change
        self._queue = ImageQueue(costs)
        self._passes: list[_Pass] = []  # the first is the one that all images get

    def submit(self, patches: int, done: Done) -> bool:
        """Takes an image, which is preprocessed first; False when the queue is full."""
        if self.reserved and self.reserved + patches > self._costs.max_queued_patches:
            return False
        seconds = self._costs.encode.seconds(patches)
        self.reserved += patches
        self.waiting_s += seconds
        self.given += 1
        self.given_s += seconds

        def ended() -> None:
            self.reserved -= patches
            done()

        def prepared() -> None:
            self._queue.add(patches, self._clock.now, ended)
            self._begin()

        takes = self._costs.preprocess.seconds(patches)
        if self._is_shared:
            self._core.run(takes, prepared)
        else:  # files are decoded in processes of their own
            self._clock.at(self._clock.now + takes, prepared)
        self._on_change(self)
        return True

    @property
    def running_s(self) -> float:
        """Seconds of the passes that run that are still to be computed."""
        return sum(self._core.left_s(one.job) for one in self._passes)

    @property
    def computes(self) -> bool:
        """Whether a pass runs."""
        return bool(self._passes)

    @property
    def busy_s(self) -> float:
        """Seconds of passes that it has computed."""
        begun = sum(one.job.seconds - self._core.left_s(one.job) for one in self._passes)
        return self._ended_s + begun

    def _begin(self) -> None:
        """Starts what may run now, as `PatchBatcher` does."""
        if not self._passes and (chosen := self._queue.next()):
            self._start(chosen)
        if len(self._passes) == 1:
            chosen = self._queue.beside(self._passes[0].running, self._clock.now)
            if chosen:
                self._start(chosen)

    def _start(self, images: list[Image]) -> None:
        patches = sum(image.patches for image in images)
        self.waiting_s -= sum(self._costs.encode.seconds(image.patches) for image in images)
        running = Running(
            patches=patches,
            began_s=self._clock.now,
            estimate_s=patches / self._queue.patches_per_s,
        )
        job = self._core.run(self._queue.seconds(images), lambda: self._end(started))
        started = _Pass(images=images, running=running, job=job)
        self._passes.append(started)
        self._on_change(self)

    def _end(self, ended: _Pass) -> None:
        self._passes.remove(ended)
        self._ended_s += ended.job.seconds
        if not self._passes:  # two passes at once say little of what one takes
            took = max(1e-6, self._clock.now - ended.running.began_s)
            self._queue.patches_per_s = ended.running.patches / took
        for image in ended.images:
            image.done()
        self._begin()
        self._on_change(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    patches: int
    done: Done
    refused: Done


class Encoders:
    """The replicas of a tier, which may grow and shrink, and a front that places images.

    The front places by its own rule, `in_order`, over replicas as they are, not as they reported.

    Args:
        clock: The simulation's.
        costs: Of every replica.
        count: How many there are at first.
        most: How many there may be.
        core: Of all of them, where they share one with others.

    Attributes:
        replicas: Those that take images.
    """

    def __init__(
        self,
        clock: Clock,
        costs: Costs,
        *,
        count: int,
        most: int | None = None,
        core: Core | None = None,
    ) -> None:
        self.replicas: list[Replica] = []
        # Moments, not seconds from now: their order is the same, and they stay true.
        self._outlooks: dict[Replica, Outlook] = {}
        self._left = list[Replica]()
        self._clock = clock
        self._costs = costs
        self._core = core
        self._cost = Cost(patch_s=costs.encode.linear_s, pair_s=costs.encode.square_s)
        self._ahead_s = most_ahead_s(max(count, most or 0))
        self._held: deque[_Held] = deque()  # no replica may have them yet
        self._version = 0  # of the look at them that is due
        for _ in range(count):
            self.grow()

    @property
    def busy_s(self) -> float:
        """Seconds that replicas have computed, all of them together."""
        return sum(replica.busy_s for replica in (*self.replicas, *self._left))

    @property
    def compute(self) -> bool:
        """Whether any pass runs."""
        return any(replica.computes for replica in (*self.replicas, *self._left))

    @property
    def unassigned(self) -> int:
        """Images that no replica has taken yet."""
        return len(self._held)

    def submit(self, patches: int, done: Done, refused: Done) -> None:
        """Has an image encoded by the replica that should finish it first.

        Args:
            patches: The image's.
            done: Called when it is encoded.
            refused: Called instead when that replica is full.
        """
        self._held.append(_Held(patches=patches, done=done, refused=refused))
        if len(self._held) == 1:
            self._place()

    def grow(self) -> None:
        """One replica more is ready."""
        replica = Replica(self._clock, self._costs, core=self._core, on_change=self._changed)
        self.replicas.append(replica)
        self._changed(replica)
        self._place()

    def shrink(self) -> None:
        """One replica less, that with the least to do; it ends what it has."""
        least = min(self.replicas, key=lambda one: self._outlooks[one].ahead_s)
        self.replicas.remove(least)
        del self._outlooks[least]
        self._left.append(least)

    def _changed(self, replica: Replica) -> None:
        """Notes until when a replica has something to do."""
        if replica in self._outlooks or replica in self.replicas:
            seconds = replica.waiting_s + replica.running_s
            until = self._clock.now + seconds if replica.reserved else 0.0
            self._outlooks[replica] = Outlook(ahead_s=until, cost=self._cost, fresh=True)
            if self._held:
                self._look_again()

    def _place(self) -> None:
        """Gives the images that are held to replicas, in order, as far as these may have more."""
        while self._held:
            held = self._held[0]
            work = Work(patches=held.patches, pairs=held.patches**2)
            order = in_order(self._choice(), work, ahead_s=self._clock.now + self._ahead_s)
            if not order:
                self._look_again()
                return
            self._held.popleft()
            if not order[0].submit(held.patches, held.done):
                held.refused()

    def _choice(self) -> Mapping[Replica, Outlook]:
        """The replicas that may come first: where one has nothing to do, the first of these."""
        idle = next((one for one in self.replicas if not one.reserved), None)
        return self._outlooks if idle is None else {idle: self._outlooks[idle]}

    def _look_again(self) -> None:
        """Places again as soon as a replica may have more, if nothing changes before."""
        self._version += 1
        if not self._outlooks:
            return
        version = self._version
        soonest = min(one.ahead_s for one in self._outlooks.values()) - self._ahead_s

        def look() -> None:
            if version == self._version:
                self._place()

        self._clock.at(soonest + _ROUNDING_S, look)
