"""The visual features of one request: whatever is needed is encoded once.

An image fills one span of the prompt, a piece of a video one for each of its temporal patches: its
features come in one stream and are dealt to their spans here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Self

from gateway.media.images import PlannedImage
from gateway.prompt.splice import VisualSpan
from gateway.prompt.visuals import Visual
from gateway.tiers.attempts import Encodable, Forward
from gateway.tiers.embeddings import EmbeddingCache, EmbeddingKey
from gateway.tiers.vision import VisionClient
from protos.process import tracing
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire import features

# Pieces of videos encoded at once for one request: each call carries the whole file.
PIECES_AT_ONCE = 2

# Takes features of one span; from its index and a chunk.
ForwardSpan = Callable[[int, tensor_pb2.FeatureChunk], Awaitable[None]]


class FeatureSource:
    """Where the choices of one request get their features from.

    What there is room for is read from the cache, as it comes. The rest goes straight from the
    vision tier to the decoder, so that nothing is kept and a slow decoder slows the encoder; of
    several choices, which would encode it several times, the request keeps it itself. Use as a
    context manager; leaving it gives up what is encoded for this request alone.

    Args:
        vision: Encodes.
        stores: Where features may be kept, tried in this order.
        visuals: Everything the prompt shows.
        spans: Of the prompt.
        salt: See `EmbeddingKey`.
        request_id: Travels with the calls.
    """

    def __init__(
        self,
        vision: VisionClient,
        stores: Sequence[EmbeddingCache],
        visuals: Sequence[Visual],
        spans: Sequence[VisualSpan],
        *,
        salt: bytes,
        request_id: str,
    ) -> None:
        self._vision = vision
        self._stores = stores
        self._visuals = visuals
        self._spans = spans
        self._salt = salt
        self._request_id = request_id
        self._pieces = asyncio.Semaphore(PIECES_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._stores:
            store.leave(self)

    @property
    def count(self) -> int:
        """Images and pieces of videos."""
        return len(self._visuals)

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
        """Passes the features of one thing's `wanted` spans to `forward`.

        Raises:
            ServiceError: it could not be encoded; see `VisionClient.encode`.
        """
        visual = self._visuals[index]
        deal = partial(_deal, visual, wanted, forward)
        encode = partial(self._encode, visual.source, by_s)
        key = EmbeddingKey(self._salt, tuple(self._spans[span].digest for span in visual.spans))
        for store in self._stores:
            summary = await store.send(key, visual.source, encode, deal, by_s=by_s, holder=self)
            if summary is not None:
                return summary
        return await encode(deal)

    async def _encode(
        self, source: Encodable, by_s: float, forward: Forward
    ) -> vision_pb2.EncodeSummary:
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
