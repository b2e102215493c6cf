"""The visual features of one request: each needed image is encoded once, for all choices."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from gateway.media.images import PlannedImage
from gateway.tiers.vision import Forward, VisionClient
from protos.tandem.v1 import tensor_pb2, vision_pb2


class FeatureSource:
    """Where the choices of one request get their features from.

    One choice gets every chunk straight from the vision tier, so that nothing is kept and a
    slow decoder slows the encoder. Several choices share one encoding, which is then kept until
    the request ends. Use as an async context manager; leaving it cancels what still runs.
    """

    def __init__(
        self,
        vision: VisionClient,
        images: Sequence[PlannedImage],
        *,
        request_id: str,
        shared: bool,
    ) -> None:
        self._vision = vision
        self._images = images
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

    async def send(
        self, span_index: int, forward: Forward, *, by_s: float
    ) -> vision_pb2.EncodeSummary:
        """Passes all features of one span to `forward`.

        Raises:
            ServiceError: the image could not be encoded; see `VisionClient.encode`.
        """
        if not self._shared:
            return await self._encode(span_index, forward, by_s)
        if span_index not in self._recordings:
            recording = _Recording()
            task = asyncio.create_task(self._record(span_index, recording, by_s))
            self._recordings[span_index] = recording, task
        recording, task = self._recordings[span_index]
        async for chunk in recording.chunks():
            await forward(chunk)
        return await asyncio.shield(task)  # one choice that is cancelled must not cancel it

    async def _record(
        self, span_index: int, recording: "_Recording", by_s: float
    ) -> vision_pb2.EncodeSummary:
        try:
            return await self._encode(span_index, recording.add, by_s)
        finally:
            recording.end()

    async def _encode(
        self, span_index: int, forward: Forward, by_s: float
    ) -> vision_pb2.EncodeSummary:
        return await self._vision.encode(
            self._images[span_index], request_id=self._request_id, by_s=by_s, forward=forward
        )


class _Recording:
    """The chunks of one image so far; everyone who reads it gets all of them."""

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
