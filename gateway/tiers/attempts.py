"""One attempt at a call to the vision tier, at one address.

An encoding may be asked for twice while nothing of it was passed on, and never after: rows of two
runs are not mixed. The tier sends features when all of them are there, so that this covers nearly
all of a call's time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc
from grpc_status import rpc_status

from gateway.fleet.router import RETRY_AFTER_S, Endpoint
from gateway.media.images import PlannedImage
from gateway.media.video_plans import PlannedFrames
from gateway.tiers.tier import code_of
from protos.media.images import Grid
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire.errors import Reason, ServiceError, Unavailable, error_for, from_rpc_error

logger = logging.getLogger(__name__)

T = TypeVar("T")

Encodable = PlannedImage | PlannedFrames
Forward = Callable[[tensor_pb2.FeatureChunk], Awaitable[None]]
EncodeCall = grpc.aio.UnaryStreamCall[vision_pb2.EncodeRequest, vision_pb2.EncodeChunk]


class ReadingAttempt(Generic[T]):
    """One call about a file, SampleVideo or RenderPdf, whose whole answer is waited for.

    Args:
        endpoint: Where.
        call: The call.
        answer: Waits for all of its answer.
        failed: Turns the transport's error into ours, and notes whose fault it was.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        call: grpc.aio.Call,
        answer: Callable[[], Awaitable[T]],
        *,
        failed: Callable[[Endpoint, grpc.RpcError], ServiceError],
    ) -> None:
        self.endpoint = endpoint
        self.answer: T | None = None
        self._call = call
        self._wait = answer
        self._failed = failed
        endpoint.calls += 1

    async def begin(self) -> None:
        """Waits for the answer.

        Raises:
            ServiceError: there is none; VISION_UNAVAILABLE, the address answers no looks.
        """
        self.answer = await _while_there(self.endpoint, self._answer())

    async def _answer(self) -> T:
        try:
            return await self._wait()
        except grpc.RpcError as error:
            raise self._failed(self.endpoint, error) from error

    def close(self) -> None:
        """Ends the call, once."""
        self._call.cancel()
        self.endpoint.calls -= 1


class EncodeAttempt:
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
        failed: Callable[["EncodeAttempt", grpc.RpcError], ServiceError],
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
            ServiceError: the call ended, or is not as agreed; VISION_UNAVAILABLE, the address
                answers no looks any more.
        """
        self._first = await _while_there(self.endpoint, self._features())
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
                raise _silent() from error
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


async def _while_there(endpoint: Endpoint, waiting: Coroutine[Any, Any, T]) -> T:
    """What comes of a call, given up when its address does not answer looks any more."""
    answer = asyncio.create_task(waiting)
    gone = asyncio.create_task(endpoint.gone.wait())
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise _silent()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


def failure_of(error: grpc.RpcError) -> ServiceError:
    """What an address answered.

    A call that it cancels reached it when it was about to end. Who cancels a call of its own is
    not told of it by an error of the call.
    """
    failure = from_rpc_error(error, unavailable=Reason.VISION_UNAVAILABLE)
    if failure.reason is not Reason.CANCELLED:
        return failure
    return error_for(
        Reason.VISION_UNAVAILABLE, "the vision tier cut the call", retry_after_s=RETRY_AFTER_S
    )


def is_cut(error: grpc.RpcError) -> bool:
    """Whether the other side went away without a word."""
    return code_of(error) is grpc.StatusCode.UNAVAILABLE and not is_told(error)


def is_told(error: grpc.RpcError) -> bool:
    """Whether an error is a service's of ours, and not its gRPC core's."""
    return rpc_status.from_call(error) is not None  # type: ignore[arg-type]


def _silent() -> ServiceError:
    message = "the vision tier fell silent"
    return error_for(Reason.VISION_UNAVAILABLE, message, retry_after_s=RETRY_AFTER_S)


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


class FeaturesCut(Unavailable):
    """The tier was lost when some of the features had been passed on.

    They are of no use to whom they were passed: rows of two runs are not mixed.
    """


class BrokenAnswer(ServiceError):
    """An answer of the tier that is not as agreed."""

    default_reason = Reason.VISION_UNAVAILABLE

    def __init__(self, what: str) -> None:
        logger.error("the vision tier sent %s", what)
        super().__init__(f"the vision tier sent {what}")
