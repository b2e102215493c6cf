"""Features that a caller brings: checked as they come, and held until the answer has ended.

No decoder is asked before all of them are here and are what their digests say. So a slow caller
holds no place in a decoder, nothing is computed from forged features under an honest name, and an
answer that moves to another decoder takes its features along.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from gateway.brought.prompt import BroughtSpan
from gateway.request.deadlines import seconds_left
from gateway.threads import Threads
from gateway.tiers.features import ForwardSpan
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire import features
from protos.wire.channels import CHUNK_BYTES
from protos.wire.errors import DeadlineExceeded, InvalidRequest, Reason
from protos.wire.tensors import dtype_name

_FIELD = "features"


class FeatureShape(NamedTuple):
    """What a model takes for each placeholder: rows of width `hidden_size` on so many levels."""

    level_count: int  # 1 + DeepStack levels
    hidden_size: int


class BroughtRules(NamedTuple):
    """What a gateway asks of brought features, and the key that it names them under."""

    shape: FeatureShape
    key: bytes


class BroughtChunk(NamedTuple):
    """Some features of a span, as they came."""

    span_index: int
    chunk: tensor_pb2.FeatureChunk


class BroughtFeatures:
    """All features of one request; used as `FeatureSource` is.

    Args:
        spans: Of the prompt, checked.
        shape: Of the model's features.
        threads: Where values are looked at.

    Attributes:
        count: Spans.
        size_bytes: Of all values and scales.
    """

    def __init__(
        self, spans: Sequence[BroughtSpan], shape: FeatureShape, *, threads: Threads
    ) -> None:
        self._spans = [_Intake(at, span, shape) for at, span in enumerate(spans)]
        self._threads = threads
        self.count = len(self._spans)
        self.size_bytes = sum(span.size_bytes for span in self._spans)

    async def receive(self, chunks: AsyncIterator[BroughtChunk], *, by_s: float) -> None:
        """Takes everything that comes, until its end.

        Args:
            chunks: In any order.
            by_s: When all of them must be here, `time.monotonic()` seconds.

        Raises:
            InvalidRequest: a chunk at fault, features that are not what their digest says, or some
                that did not come.
            DeadlineExceeded: they came too slowly.
            ServiceError: DATA_LOSS, bytes that do not match their checksum.
        """
        try:
            async with asyncio.timeout(seconds_left(by_s)):
                await self._take(chunks)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the features were not all here before the deadline", param=_FIELD
            ) from error
        for span in self._spans:
            span.check_complete()

    async def _take(self, chunks: AsyncIterator[BroughtChunk]) -> None:
        async for index, chunk in chunks:
            if not 0 <= index < self.count:
                raise _bad(
                    "span_index",
                    f"is {index}, expected the place of one of {self.count} spans",
                    Reason.INVALID_SPAN,
                )
            await self._threads.run(partial(self._spans[index].add, chunk))

    def needed(self, spans: Collection[int]) -> list[int]:
        """Those of the spans whose features are sent: all."""
        return sorted(spans)

    async def send(
        self, index: int, wanted: Collection[int], forward: ForwardSpan, *, by_s: float
    ) -> vision_pb2.EncodeSummary:
        """Passes the features of one span on; nothing was encoded for it here."""
        for chunk in self._spans[index].chunks:
            await forward(index, chunk)
        return vision_pb2.EncodeSummary()


def check_size(size_bytes: int, most: int) -> None:
    """Refuses features that there never is room for.

    Raises:
        InvalidRequest: REQUEST_TOO_LARGE.
    """
    if size_bytes > most:
        raise InvalidRequest(
            f"span_features announces {size_bytes} bytes of features, expected at most {most}"
            " (max_in_flight_bytes); bfloat16 takes half of float32's, int8 a quarter",
            reason=Reason.REQUEST_TOO_LARGE,
            param="span_features",
        )


class _Intake:
    """One span's features while they come, and afterwards."""

    def __init__(self, index: int, span: BroughtSpan, shape: FeatureShape) -> None:
        self.chunks: list[tensor_pb2.FeatureChunk] = []
        self._index = index
        self._span = span
        self._shape = shape
        self._missing = shape.level_count * span.length
        self._arrived = np.zeros((shape.level_count, span.length), dtype=np.bool_)

    @property
    def size_bytes(self) -> int:
        """Of all values and scales, as they travel."""
        is_int8 = self._span.dtype == tensor_pb2.DTYPE_INT8
        row = self._shape.hidden_size * features.VALUE_BYTES[self._span.dtype] + 4 * is_int8
        return self._arrived.size * row

    def add(self, chunk: tensor_pb2.FeatureChunk) -> None:
        """Checks one chunk, and with the last one the digest; called in a worker thread."""
        if chunk.values.dtype != self._span.dtype:
            raise _bad(
                "chunk.values.dtype",
                f"is {dtype_name(chunk.values.dtype)}, expected the {dtype_name(self._span.dtype)}"
                f" of span_features[{self._index}]",
                Reason.UNSUPPORTED_DTYPE,
            )
        if len(chunk.values.data) > CHUNK_BYTES:
            size = len(chunk.values.data)
            raise _bad("chunk.values", f"holds {size} bytes, expected at most {CHUNK_BYTES}")
        self._take_rows(chunk)
        hidden = self._shape.hidden_size
        features.values_from_proto(chunk, field=f"{_FIELD}.chunk", hidden_size=hidden)
        self.chunks.append(chunk)
        if not self._missing and features.digest(self.chunks) != self._span.digest:
            field = f"span_features[{self._index}].digest"
            raise InvalidRequest(
                f"{field} is {self._span.digest.hex()}, the features that came have"
                f" {features.digest(self.chunks).hex()}",
                param=field,
            )

    def _take_rows(self, chunk: tensor_pb2.FeatureChunk) -> None:
        levels, length = self._arrived.shape
        if not 0 <= chunk.level < levels:
            raise _bad(
                "chunk.level", f"is {chunk.level}, expected 0 to {levels - 1}", Reason.INVALID_SPAN
            )
        rows = chunk.values.shape[0] if chunk.values.shape else 0
        first, last = chunk.row_offset, chunk.row_offset + rows
        if rows < 1 or not 0 <= first <= length - rows:
            raise _bad(
                "chunk.row_offset",
                f"is {first}, with {rows} rows, expected at least one within the {length} of span"
                f" {self._index}",
                Reason.INVALID_SPAN,
            )
        if self._arrived[chunk.level, first:last].any():
            raise _bad(
                "chunk.row_offset",
                f"is {first}: rows of {first} to {last - 1} of span {self._index}, level"
                f" {chunk.level}, come for the second time, expected each row once",
                Reason.INVALID_SPAN,
            )
        self._arrived[chunk.level, first:last] = True
        self._missing -= rows

    def check_complete(self) -> None:
        """Refuses what ended too early."""
        if self._missing:
            total = self._arrived.size
            raise InvalidRequest(
                f"{_FIELD} of span {self._index} are incomplete: {total - self._missing} rows came"
                f" before the stream was half-closed, expected {total}",
                reason=Reason.INVALID_SPAN,
                param=_FIELD,
            )


def _bad(field: str, fault: str, reason: Reason = Reason.SHAPE_MISMATCH) -> InvalidRequest:
    return InvalidRequest(f"{_FIELD}.{field} {fault}", reason=reason, param=f"{_FIELD}.{field}")
