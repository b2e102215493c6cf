"""The visual features of one request: whatever is needed is encoded once, for all choices.

An image fills one span of the prompt, a piece of a video one for each of its temporal patches: its
features come in one stream and are dealt to their spans here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

from gateway.media.images import PlannedImage
from gateway.prompt.visuals import Visual
from gateway.tiers.vision import Forward, VisionClient
from protos.process import tracing
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire import features

# Pieces of videos encoded at once for one request: each call carries the whole file.
PIECES_AT_ONCE = 2

# Takes features of one span; from its index and a chunk.
ForwardSpan = Callable[[int, tensor_pb2.FeatureChunk], Awaitable[None]]


class FeatureSource:
    """Where the choices of one request get their features from.

    One choice gets every chunk straight from the vision tier, so that nothing is kept and a
    slow decoder slows the encoder. Several choices share one encoding, which is then kept until
    the request ends. Use as an async context manager; leaving it cancels what still runs.
    """

    def __init__(
        self,
        vision: VisionClient,
        visuals: Sequence[Visual],
        *,
        request_id: str,
        shared: bool,
    ) -> None:
        self._vision = vision
        self._visuals = visuals
        self._pieces = asyncio.Semaphore(PIECES_AT_ONCE)
        self._request_id = request_id
        self._shared = shared
        self._recordings: dict[int, tuple[_Recording, asyncio.Task[vision_pb2.EncodeSummary]]] = {}

    async def __aenter__(self) -> "FeatureSource":
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [task for _, task in self._recordings.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def needed(self, spans: Collection[int]) -> list[int]:
        """Indices of what must be encoded for these spans of the prompt."""
        wanted = set(spans)
        return [
            index
            for index, visual in enumerate(self._visuals)
            if not wanted.isdisjoint(visual.spans)
        ]

    async def send(
        self, index: int, wanted: Collection[int], forward: ForwardSpan, *, by_s: float
    ) -> vision_pb2.EncodeSummary:
        """Encodes one thing and passes the features of its `wanted` spans to `forward`.

        Raises:
            ServiceError: it could not be encoded; see `VisionClient.encode`.
        """
        deal = partial(_deal, self._visuals[index], wanted, forward)
        if not self._shared:
            return await self._encode(index, deal, by_s)
        if index not in self._recordings:
            recording = _Recording()
            task = asyncio.create_task(self._record(index, recording, by_s))
            self._recordings[index] = recording, task
        recording, task = self._recordings[index]
        async for chunk in recording.chunks():
            await deal(chunk)
        return await asyncio.shield(task)  # one choice that is cancelled must not cancel it

    async def _record(
        self, index: int, recording: "_Recording", by_s: float
    ) -> vision_pb2.EncodeSummary:
        try:
            return await self._encode(index, recording.add, by_s)
        finally:
            recording.end()

    async def _encode(self, index: int, forward: Forward, by_s: float) -> vision_pb2.EncodeSummary:
        source = self._visuals[index].source
        async with nullcontext() if isinstance(source, PlannedImage) else self._pieces:
            with tracing.inside("encode"):
                return await self._vision.encode(
                    source, request_id=self._request_id, by_s=by_s, forward=forward
                )


async def _deal(
    visual: Visual, wanted: Collection[int], forward: ForwardSpan, chunk: tensor_pb2.FeatureChunk
) -> None:
    if len(visual.spans) == 1:
        await forward(visual.spans[0], chunk)
        return
    rows = visual.source.token_count // len(visual.spans)
    for span, part in _parts(chunk, rows):
        if visual.spans[span] in wanted:
            await forward(visual.spans[span], part)


def _parts(
    chunk: tensor_pb2.FeatureChunk, span_rows: int
) -> Iterator[tuple[int, tensor_pb2.FeatureChunk]]:
    """Cuts a chunk at the borders of spans that have `span_rows` rows each."""
    at = chunk.row_offset
    end = at + chunk.values.shape[0]
    while at < end:
        span, offset = divmod(at, span_rows)
        stop = min(end, (span + 1) * span_rows)
        begin, past = at - chunk.row_offset, stop - chunk.row_offset
        yield span, features.rows_of(chunk, begin, past, row_offset=offset)
        at = stop


class _Recording:
    """The chunks of one encoding so far; everyone who reads it gets all of them."""

    def __init__(self) -> None:
        self._chunks: list[tensor_pb2.FeatureChunk] = []
        self._ended = False
        self._grown = asyncio.Event()

    async def add(self, chunk: tensor_pb2.FeatureChunk) -> None:
        self._chunks.append(chunk)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    async def chunks(self) -> AsyncIterator[tensor_pb2.FeatureChunk]:
        at = 0
        while True:
            while at < len(self._chunks):
                yield self._chunks[at]
                at += 1
            if self._ended:
                return
            await self._grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()
