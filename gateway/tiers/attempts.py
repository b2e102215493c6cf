"""One encoding at one address, and the race of two when the first address stays silent.

An encoding may be asked for twice while nothing of it was passed on, and never after: rows of two
runs are not mixed. The tier sends features when all of them are there, so that this covers nearly
all of a call's time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc

from gateway.media.images import PlannedImage
from gateway.media.video_plans import PlannedFrames
from gateway.tiers.router import Endpoint
from protos.media.images import Grid
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire.errors import Reason, ServiceError, error_for

logger = logging.getLogger(__name__)

Encodable = PlannedImage | PlannedFrames
Forward = Callable[[tensor_pb2.FeatureChunk], Awaitable[None]]
EncodeCall = grpc.aio.UnaryStreamCall[vision_pb2.EncodeRequest, vision_pb2.EncodeChunk]


class Attempt:
    """One Encode call: `begin`, then `rest`, and `close` at the end in any case.

    Args:
        endpoint: Where.
        call: The stream.
        image: What is encoded.
        level_count: Levels of its features.
        failed: Turns the transport's error into ours, and notes whose fault it was.
        broken: Told of an answer that is not as agreed.
        was_connected: Whether the call went out on a connection that was there.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        call: EncodeCall,
        image: Encodable,
        level_count: int,
        *,
        failed: Callable[["Attempt", grpc.RpcError], ServiceError],
        broken: Callable[[Endpoint], None],
        was_connected: bool,
    ) -> None:
        self.endpoint = endpoint
        self.image = image
        self.was_connected = was_connected
        self.begun_s = time.monotonic()
        endpoint.calls += 1
        endpoint.patches += image.grid.patches
        self.ahead = endpoint.patches  # this gateway's at work there, its own included
        self.took_s = 0.0  # until the first features
        self._call = call
        self._messages = aiter(call)
        self._failed = failed
        self._broken = broken
        self._reader = _FeatureReader(image, level_count)
        self._first: tensor_pb2.FeatureChunk | None = None

    async def begin(self) -> None:
        """Reads up to the first features, which are kept.

        Raises:
            ServiceError: the call ended, or is not as agreed.
        """
        self._first = await self._features()
        self.took_s = time.monotonic() - self.begun_s

    async def rest(self, forward: Forward, *, within_s: float) -> vision_pb2.EncodeSummary:
        """Passes all features on.

        Args:
            forward: Takes them.
            within_s: Longest silence between two messages.

        Raises:
            ServiceError: as `begin`; VISION_UNAVAILABLE, the address fell silent.
        """
        chunk = self._first
        while chunk is not None:
            await forward(chunk)
            try:
                async with asyncio.timeout(within_s):
                    chunk = await self._features()
            except TimeoutError as error:
                raise error_for(
                    Reason.VISION_UNAVAILABLE, "the vision tier fell silent", retry_after_s=1.0
                ) from error
        with self._as_agreed():
            return self._reader.summary()

    def close(self) -> None:
        """Ends the call, once."""
        self._call.cancel()
        self.endpoint.calls -= 1
        self.endpoint.patches -= self.image.grid.patches

    async def _features(self) -> tensor_pb2.FeatureChunk | None:
        """The next features; None at the end of the stream."""
        try:
            async for message in self._messages:
                with self._as_agreed():
                    chunk = self._reader.take(message)
                if chunk is not None:
                    return chunk
        except grpc.RpcError as error:
            raise self._failed(self, error) from error
        return None

    @contextmanager
    def _as_agreed(self) -> Iterator[None]:
        try:
            yield
        except BrokenAnswer:
            self._broken(self.endpoint)
            raise


class _FeatureReader:
    """Checks an Encode stream against what was planned, so that no image is half used."""

    def __init__(self, image: Encodable, level_count: int) -> None:
        self._image = image
        self._level_count = level_count
        self._rows_left = level_count * image.token_count
        self._summary: vision_pb2.EncodeSummary | None = None

    def take(self, message: vision_pb2.EncodeChunk) -> tensor_pb2.FeatureChunk | None:
        """Notes one message; returns the features in it, if any."""
        kind = message.WhichOneof("payload")
        if kind == "header":
            self._check_header(message.header)
        elif kind == "summary":
            self._summary = message.summary
        elif kind == "features":
            self._rows_left -= sum(message.features.values.shape[:1])
            return message.features
        return None

    def summary(self) -> vision_pb2.EncodeSummary:
        """Where the time went, when everything has come."""
        if self._summary is None or self._rows_left != 0:
            raise BrokenAnswer("an incomplete answer")
        return self._summary

    def _check_header(self, header: vision_pb2.EncodeHeader) -> None:
        grid = Grid(header.grid_thw.t, header.grid_thw.h, header.grid_thw.w)
        planned = (self._image.grid, self._image.token_count, self._level_count)
        if (grid, header.token_count, header.level_count) != planned:
            raise BrokenAnswer("features of another shape than planned")


class BrokenAnswer(ServiceError):
    """An answer of the tier that is not as agreed."""

    default_reason = Reason.VISION_UNAVAILABLE

    def __init__(self, what: str) -> None:
        logger.error("the vision tier sent %s", what)
        super().__init__(f"the vision tier sent {what}")


class Race:
    """Finds the first of at most two attempts that has features.

    Args:
        open_at: Makes an attempt, at an address other than those given where there is one.
        patience_s: How long a first attempt is waited for alone.
        may_retry: Whether a failure, or silence where None, may be followed by a second attempt;
            counts it if so.
    """

    def __init__(
        self,
        open_at: Callable[[Collection[Endpoint]], Awaitable[Attempt]],
        *,
        patience_s: Callable[[Attempt], float],
        may_retry: Callable[[ServiceError | None], bool],
    ) -> None:
        self._open_at = open_at
        self._patience_s = patience_s
        self._may_retry = may_retry
        self._running: dict[asyncio.Task[None], Attempt] = {}
        self.waited_s = float("inf")  # for the first attempt alone, at most
        self.left_behind: Endpoint | None = None  # silent when the second attempt had features

    @asynccontextmanager
    async def winner(self) -> AsyncIterator[Attempt]:
        """The attempt that has features first; leaving the block ends every call.

        Raises:
            ServiceError: the last attempt's failure.
        """
        winner: Attempt | None = None
        try:
            winner = await self._winner()
            yield winner
        finally:
            tasks = list(self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for attempt in (*self._running.values(), *(() if winner is None else (winner,))):
                attempt.close()

    async def _winner(self) -> Attempt:
        first = await self._start(())
        self.waited_s = self._patience_s(first)
        outcome = await self._outcome(self.waited_s)
        if not isinstance(outcome, Attempt) and self._may_retry(outcome):
            try:
                await self._start((first.endpoint,))
            except ServiceError:  # nobody else is ready, but the first may still answer
                if outcome is not None:
                    raise
            outcome = await self._outcome(None)
        elif outcome is None:
            outcome = await self._outcome(None)
        if not isinstance(outcome, Attempt):
            assert outcome is not None, "without a limit there is one"
            raise outcome
        if first in self._running.values() and outcome.endpoint is not first.endpoint:
            self.left_behind = first.endpoint
        return outcome

    async def _start(self, avoid: Collection[Endpoint]) -> Attempt:
        attempt = await self._open_at(avoid)
        self._running[asyncio.create_task(attempt.begin())] = attempt
        return attempt

    async def _outcome(self, within_s: float | None) -> Attempt | ServiceError | None:
        """The first attempt with features, else the failure of the last; None: time is over."""
        failure: ServiceError | None = None
        by_s = None if within_s is None else time.monotonic() + within_s
        while self._running:
            left_s = None if by_s is None else max(0.0, by_s - time.monotonic())
            done, _ = await asyncio.wait(
                self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return None
            for task in done:
                attempt = self._running.pop(task)
                error = task.exception()
                if error is None:
                    return attempt
                attempt.close()
                if not isinstance(error, ServiceError):
                    raise error
                failure = error
        return failure
