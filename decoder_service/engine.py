"""The engine: one compute thread that runs steps over all sequences.

Handlers live on the event loop, the engine on its thread; the engine never awaits and a handler
never computes. They meet at two places: a mailbox of commands (bounded, because `submit` refuses
once `slots + max_waiting` sequences are in flight) and one event queue per sequence (bounded by
the sequence's own length). Commands take effect between steps, so a cancelled sequence has given
its slot back before the next one.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from decoder_service.postman import Postman
from decoder_service.residency import Admission
from decoder_service.sequence import Completion, Request, Sequence, Token
from decoder_service.step import Output, StepExecutor
from protos.errors import InternalError, Overloaded, Reason, ServiceError, Unavailable

logger = logging.getLogger(__name__)


class SlotGranted:
    """The sequence has a slot: its features may come."""


Event = Admission | SlotGranted | Token | Completion | ServiceError
Command = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the engine is."""

    running_count: int
    waiting_count: int
    kv_token_count: int
    cached_token_count: int
    preemption_count: int


class _Held(NamedTuple):
    """What holds slots."""

    running_count: int = 0
    kv_token_count: int = 0
    cached_token_count: int = 0


class SequenceStream:
    """A handler's end of one sequence; use as a context manager, which frees it at the end."""

    def __init__(self, engine: "Engine", sequence: Sequence) -> None:
        self._engine = engine
        self._sequence = sequence
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._admission: Admission | None = None
        self._is_decided = asyncio.Event()
        self.slot_granted = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.cancel(self._sequence)

    def put(self, event: Event) -> None:
        """Adds an event; on the event loop only."""
        if isinstance(event, SlotGranted):
            self.slot_granted.set()
            return
        if isinstance(event, Admission):
            self._admission = event
        else:
            self._events.put_nowait(event)
        self._is_decided.set()

    async def admission(self) -> Admission:
        """Waits until it is known what the sequence needs.

        Raises:
            ServiceError: what ended the sequence before.
        """
        await self._is_decided.wait()
        if self._admission is None:
            await self.next_events()
        assert self._admission is not None, "only an error comes before it"
        return self._admission

    async def next_events(self) -> list[Token | Completion]:
        """Waits for the next event and takes all that are there, in order.

        Raises:
            ServiceError: what ended the sequence.
        """
        events = [await self._events.get()]
        while not self._events.empty():
            events.append(self._events.get_nowait())
        taken: list[Token | Completion] = []
        for event in events:
            if isinstance(event, ServiceError):
                if taken:  # what came before the error is still delivered
                    self._events.put_nowait(event)
                    return taken
                raise event
            assert isinstance(event, Token | Completion), "put keeps others out of the queue"
            taken.append(event)
        return taken

    def set_features(self, span_index: int, values: npt.NDArray[np.float32]) -> None:
        """Hands over the complete features of one span, float32 [1 + levels, N, hidden]."""
        self._engine.set_features(self._sequence, span_index, values)


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
        executor.on_start = self._send_all
        self._residency = executor.residency
        self._on_death = on_death
        self._most_in_flight = self._residency.max_sequences + max_waiting
        self._condition = threading.Condition()
        # Guarded by the condition:
        self._mailbox: deque[Command] = deque()
        self._streams: dict[Sequence, SequenceStream] = {}  # everything in flight
        self._is_accepting = False
        self._mean_s = 1.0  # how long a sequence takes, a running mean
        # The thread's own:
        self._step = 0
        self._is_stopping = False
        self._held = _Held()
        self._outbox: list[tuple[SequenceStream, Event]] = []
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
        stream = SequenceStream(self, sequence)
        with self._condition:
            if not self._is_accepting:
                raise Unavailable("the decoder has stopped", reason=Reason.DECODER_UNAVAILABLE)
            if len(self._streams) >= self._most_in_flight:
                slots = self._residency.max_sequences
                waiting = self._most_in_flight - slots
                raise Overloaded(
                    f"{waiting} sequences wait already, which is the limit",
                    retry_after_s=max(1.0, self._mean_s / slots),
                )
            self._streams[sequence] = stream
        self._post(lambda: self._arrive(sequence))
        return stream

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
        held = self._held
        return Load(
            running_count=held.running_count,
            waiting_count=max(0, len(self._streams) - held.running_count),
            kv_token_count=held.kv_token_count,
            cached_token_count=held.cached_token_count,
            preemption_count=self._residency.preemption_count,
        )

    def _post(self, command: Command) -> None:
        with self._condition:
            self._mailbox.append(command)
            self._condition.notify()

    # -- The thread's side -------------------------------------------------------------------

    def _main(self) -> None:
        try:
            while not self._is_stopping:
                self._run_commands()
                self._admit()
                self._run_step()
            error: ServiceError = Unavailable("the decoder is stopping", reason=Reason.DRAINING)
        except Exception:  # The engine loop: no stream may hang when it dies.
            logger.exception("the engine died; every stream fails")
            error = InternalError("the decoder's engine failed")
            self._postman.call(self._on_death)
        self._fail_all(error)

    def _run_commands(self) -> None:
        """Runs all commands there are; waits for one when nothing else can be done."""
        residency = self._residency
        is_idle = residency.scheduler.plan(residency.running, self._step + 1, 1).is_empty
        if is_idle:
            self._send_all()
        with self._condition:
            while is_idle and not self._mailbox:
                self._condition.wait()
            commands = list(self._mailbox)
            self._mailbox.clear()
        for command in commands:
            command()

    def _arrive(self, sequence: Sequence) -> None:
        self._deliver(sequence, self._residency.arrive(sequence))

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
            self._settle(self._executor.run(plan, self._step))

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
            self._mean_s += 0.1 * (age_s - self._mean_s)

    def _drop(self, sequence: Sequence) -> None:
        if sequence not in self._streams:
            return
        self._residency.end(sequence)
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
        self._held = _Held()
        self._outbox += [(stream, error) for stream in streams]
        self._send_all()

    def _update_load(self) -> None:
        running = self._residency.running
        self._held = _Held(
            running_count=len(running),
            kv_token_count=sum(sequence.kv_length for sequence in running),
            cached_token_count=self._residency.slots.cached_count,
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
            self._postman.call(lambda: _put_all(batch))


def _put_all(batch: list[tuple[SequenceStream, Event]]) -> None:
    for stream, event in batch:
        stream.put(event)
