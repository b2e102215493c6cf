"""The engine: one compute thread that runs steps over all sequences.

Handlers live on the event loop, the engine on its thread; the engine never awaits and a handler
never computes. They meet at two places: a mailbox of commands (bounded, because `submit` refuses
once `slots + max_waiting` sequences are in flight) and one event queue per sequence (bounded by
the sequence's own length). Commands take effect between steps, so a cancelled sequence has given
its slot back before the next one. What a new sequence needs is looked up while the model computes:
its images need not wait for the step.
"""

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt

from decoder_service.engine.notifier import Postman
from decoder_service.engine.outputs import Output
from decoder_service.engine.step import StepExecutor
from decoder_service.engine.stream import Event, SequenceStream, SlotGranted, put_all
from decoder_service.sequence.request import Request, Token
from decoder_service.sequence.sequence import Sequence
from protos.wire.errors import InternalError, Overloaded, Reason, ServiceError, Unavailable

logger = logging.getLogger(__name__)

Command = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the engine is."""

    running_count: int = 0
    waiting_count: int = 0
    kv_token_count: int = 0
    cached_token_count: int = 0
    preemption_count: int = 0


class Engine:
    """Runs sequences on a thread of its own.

    Args:
        executor: Runs the parts of a step; used by the engine's thread only.
        max_waiting: Sequences that may wait for a slot.
        on_death: Called on the event loop when the thread has died of an error.
    """

    def __init__(
        self,
        *,
        executor: StepExecutor,
        max_waiting: int,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self._executor = executor
        self._residency = executor.residency
        self._on_death = on_death
        self._max_waiting = max_waiting
        self._most_in_flight = self._residency.max_sequences + max_waiting
        self._condition = threading.Condition()
        # Guarded by the condition:
        self._mailbox: deque[Command] = deque()
        self._arrivals: deque[Sequence] = (
            deque()
        )  # handled before the mailbox's commands about them
        self._streams: dict[Sequence, SequenceStream] = {}  # everything in flight
        self._tenants: Counter[bytes] = Counter()  # whose it is
        self._is_accepting = False
        self._mean_s = 1.0  # how long a sequence takes, a running mean
        # The thread's own:
        self._step = 0
        self._is_stopping = False
        self._load = Load()  # but for `waiting_count`, which handlers change
        self._outbox: list[tuple[SequenceStream, Event]] = []
        # Held by the engine's thread, except while the model computes: then the postman's thread
        # may look up what new sequences need.
        self._residency_lock = threading.Lock()
        self._postman = Postman()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)

    async def __aenter__(self) -> Self:
        self._postman.start(asyncio.get_running_loop())
        self._is_accepting = True
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Fails what still runs with DRAINING and joins the threads."""
        with self._condition:
            self._is_accepting = False
        self._post(self._stop)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._postman.stop)

    # -- The handlers' side ------------------------------------------------------------------

    def submit(self, request: Request) -> SequenceStream:
        """Queues a sequence.

        Raises:
            Overloaded: too many sequences wait already.
            Unavailable: the engine has stopped.
        """
        sequence = Sequence(request, arrival=time.monotonic())
        stream = SequenceStream(
            cancel=partial(self.cancel, sequence),
            set_features=partial(self.set_features, sequence),
        )
        with self._condition:
            if not self._is_accepting:
                raise Unavailable("the decoder has stopped", reason=Reason.DECODER_UNAVAILABLE)
            if len(self._streams) >= self._most_in_flight:
                if not self._may_displace(request.tenant):
                    raise self._full()
                self._mailbox.append(self._displace)
            self._streams[sequence] = stream
            self._tenants[request.tenant] += 1
            self._arrivals.append(sequence)
            self._condition.notify()
        self._postman.send(self._arrive_meanwhile)
        return stream

    def _may_displace(self, tenant: bytes) -> bool:
        """Whether a full queue takes one more, because another tenant has two more than this one.

        There are never more of those than places: what is displaced goes at the next step.
        """
        has_room = len(self._streams) < self._most_in_flight + self._max_waiting
        return has_room and max(self._tenants.values()) > self._tenants[tenant] + 1

    def _full(self) -> Overloaded:
        return Overloaded(
            f"{self._max_waiting} sequences wait already, which is the limit",
            retry_after_s=max(1.0, self._mean_s / self._residency.max_sequences),
        )

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence before the next step; nothing happens when it has ended."""
        self._post(lambda: self._drop(sequence))

    def set_features(
        self, sequence: Sequence, span_index: int, values: npt.NDArray[np.float32]
    ) -> None:
        """Gives a sequence the complete features of one span."""
        now = time.monotonic()
        self._post(lambda: self._take_features(sequence, span_index, values, now))

    def load(self) -> Load:
        """How busy the engine is; what holds a slot is as of its latest step or command."""
        load = self._load
        return replace(load, waiting_count=max(0, len(self._streams) - load.running_count))

    def _post(self, command: Command) -> None:
        with self._condition:
            self._mailbox.append(command)
            self._condition.notify()

    def end_streams(self) -> None:
        """Ends every stream with DRAINING at once, whatever step is at work; on the event loop."""
        with self._condition:
            streams = list(self._streams.values())
        for stream in streams:
            stream.put(_draining())

    # -- The thread's side -------------------------------------------------------------------

    def _main(self) -> None:
        self._residency_lock.acquire()  # for good if it dies
        try:
            while not self._is_stopping:
                self._run_commands()
                self._admit()
                self._run_step()
            error: ServiceError = _draining()
        except Exception:  # The engine loop: no stream may hang when it dies.
            logger.exception("the engine died; every stream fails")
            error = InternalError("the decoder's engine failed")
            self._postman.call(self._on_death)
        self._fail_all(error)

    def _run_commands(self) -> None:
        """Runs all commands there are; waits for one when nothing else can be done."""
        is_idle = not self._residency.has_work
        if is_idle:
            self._send_all()
        with self._condition:
            while is_idle and not self._mailbox and not self._arrivals:
                self._condition.wait()
            arrivals, commands = list(self._arrivals), list(self._mailbox)
            self._arrivals.clear()
            self._mailbox.clear()
        for sequence in arrivals:
            self._deliver(sequence, self._residency.arrive(sequence))
        for command in commands:
            command()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """While the model computes, others may look at the residency."""
        self._residency_lock.release()
        try:
            self._send_all()
            if self._arrivals:  # between runs nobody could look
                self._postman.send(self._arrive_meanwhile)
            yield
        finally:
            self._residency_lock.acquire()

    def _arrive_meanwhile(self) -> None:
        """Looks up what new sequences need, on the postman's thread, if the model computes."""
        if not self._residency_lock.acquire(blocking=False):
            return  # the engine's thread will
        try:
            with self._condition:
                arrivals = [(sequence, self._streams[sequence]) for sequence in self._arrivals]
                self._arrivals.clear()
            batch: list[tuple[SequenceStream, Event]] = [
                (stream, self._residency.arrive(sequence)) for sequence, stream in arrivals
            ]
            if batch:  # before the lock goes, so that nothing of theirs comes first
                self._postman.call(lambda: put_all(batch))
        except Exception as error:  # The engine's own errors end the engine.
            self._post(partial(_raise, error))
            return
        finally:
            self._residency_lock.release()

    def _admit(self) -> None:
        for sequence in self._residency.admit(time.monotonic()):
            sequence.served_step = self._step
            self._deliver(sequence, SlotGranted())
        self._update_load()

    def _run_step(self) -> None:
        count = self._residency.slots.decoding_count
        mixed_tokens = self._executor.pacer.chunk_tokens(count) if count else 0
        plan = self._residency.plan(self._step + 1, mixed_tokens, time.monotonic())
        if not plan.is_empty:
            self._step += 1
            self._settle(self._executor.run(plan, self._step, self._computing))

    def _settle(self, outputs: list[Output]) -> None:
        """Forgets the sequences that ended and delivers what came out."""
        for sequence, event in outputs:
            self._deliver(sequence, event)
            if not isinstance(event, Token):
                self._forget(sequence)
        self._update_load()

    def _forget(self, sequence: Sequence) -> None:
        age_s = time.monotonic() - sequence.times.arrival
        with self._condition:
            del self._streams[sequence]
            self._tenants[sequence.request.tenant] -= 1
            self._tenants += Counter()  # forgets those that have none
            self._mean_s += 0.1 * (age_s - self._mean_s)

    def _drop(self, sequence: Sequence) -> None:
        if sequence not in self._streams:
            return
        self._residency.end(sequence)
        self._forget(sequence)

    def _displace(self) -> None:
        """Refuses one waiting sequence, if the queue is still too full."""
        if len(self._streams) <= self._most_in_flight:
            return
        sequence = self._residency.refused(time.monotonic())
        if sequence is not None:
            self._residency.end(sequence)
            self._deliver(sequence, self._full())
            self._forget(sequence)

    def _take_features(
        self, sequence: Sequence, span_index: int, values: npt.NDArray[np.float32], now: float
    ) -> None:
        if sequence in self._streams:
            sequence.set_features(span_index, values, now)

    def _stop(self) -> None:
        self._is_stopping = True

    def _fail_all(self, error: ServiceError) -> None:
        """Fails every sequence there is; from here on `submit` refuses."""
        with self._condition:
            self._is_accepting = False
            streams = list(self._streams.values())
            self._streams.clear()
            self._tenants.clear()
        self._load = Load(preemption_count=self._residency.preemption_count)
        self._outbox += [(stream, error) for stream in streams]
        self._send_all()

    def _update_load(self) -> None:
        running = self._residency.running
        self._load = Load(
            running_count=len(running),
            kv_token_count=sum(sequence.kv_length for sequence in running),
            cached_token_count=self._residency.slots.prefixes.token_count,
            preemption_count=self._residency.preemption_count,
        )

    def _deliver(self, sequence: Sequence, event: Event) -> None:
        self._outbox.append((self._streams[sequence], event))

    def _send_all(self) -> None:
        """Hands all events to the event loop.

        While the model computes, if it does: then the interpreter is the loop's. Between runs the
        two would take it from each other, and the next run would wait.
        """
        if self._outbox:
            batch, self._outbox = self._outbox, []
            self._postman.call(lambda: put_all(batch))


def _draining() -> ServiceError:
    return Unavailable("the decoder is stopping", reason=Reason.DRAINING)


def _raise(error: Exception) -> None:
    raise error
