"""A handler's end of one sequence: the events that the engine sends it, in order."""

import asyncio
from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

from decoder_service.schedule.residency import Admission
from decoder_service.sequence.request import Completion, Token
from protos.wire.errors import ServiceError

FloatArray = npt.NDArray[np.float32]


class SlotGranted:
    """The sequence has a slot: its features may come."""


Event = Admission | SlotGranted | Token | Completion | ServiceError


class SequenceStream:
    """A handler's end of one sequence; use as a context manager, which frees it at the end.

    Args:
        cancel: Ends the sequence; called at the end, whether it has ended or not.
        set_features: Takes the complete features of one span.
    """

    def __init__(
        self, *, cancel: Callable[[], None], set_features: Callable[[int, FloatArray], None]
    ) -> None:
        self._cancel = cancel
        self._set_features = set_features
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._admission: Admission | None = None
        self._is_decided = asyncio.Event()
        self.slot_granted = asyncio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()

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

    def set_features(self, span_index: int, values: FloatArray) -> None:
        """Hands over the complete features of one span, float32 [1 + levels, N, hidden]."""
        self._set_features(span_index, values)


def put_all(batch: list[tuple[SequenceStream, Event]]) -> None:
    """Adds events to their streams; on the event loop only."""
    for stream, event in batch:
        stream.put(event)
