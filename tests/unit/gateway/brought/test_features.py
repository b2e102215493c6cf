"""Brought features are taken whole and as they were named, or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gateway.brought.features import BroughtChunk, BroughtFeatures, FeatureShape
from gateway.brought.prompt import BroughtSpan
from gateway.threads import Threads
from protos.media.images import Grid
from protos.tandem.v1 import tensor_pb2
from protos.wire import features
from protos.wire.channels import CHUNK_BYTES
from protos.wire.errors import DeadlineExceeded, Reason, ServiceError

SHAPE = FeatureShape(level_count=3, hidden_size=8)
LENGTHS = (4, 6)
Chunks = list[BroughtChunk]


@pytest.fixture(scope="module")
def threads() -> Iterator[Threads]:
    with Threads(1) as pool:
        yield pool


def values(at: int) -> Any:
    random = np.random.default_rng(at)
    shape = (SHAPE.level_count, LENGTHS[at], SHAPE.hidden_size)
    return random.standard_normal(shape, dtype=np.float32)


def rows(at: int, form: str = "float32") -> list[tensor_pb2.FeatureChunk]:
    """The features of one span, a row in each chunk."""
    return [
        features.to_proto(level[row : row + 1], level=number, row_offset=row, form=form)
        for number, level in enumerate(values(at))
        for row in range(LENGTHS[at])
    ]


def brought(form: str = "float32") -> tuple[list[BroughtSpan], Chunks]:
    spans, chunks = [], []
    for at, length in enumerate(LENGTHS):
        own = rows(at, form)
        span = BroughtSpan(
            offset=10 * at,
            length=length,
            grid=Grid(1, 2, 2 * length),
            dtype=own[0].values.dtype,
            digest=features.digest(own),
        )
        spans.append(span)
        chunks += [BroughtChunk(at, chunk) for chunk in own]
    return spans, chunks


async def stream(chunks: Sequence[BroughtChunk]) -> AsyncIterator[BroughtChunk]:
    for chunk in chunks:
        yield chunk


async def received(threads: Threads, spans: list[BroughtSpan], chunks: Chunks) -> BroughtFeatures:
    found = BroughtFeatures(spans, SHAPE, threads=threads)
    await found.receive(stream(chunks), by_s=time.monotonic() + 60)
    return found


@pytest.mark.parametrize("form", features.FORMS)
async def test_features_in_any_order_are_passed_on_as_they_came(
    threads: Threads, form: str
) -> None:
    spans, chunks = brought(form)
    found = await received(threads, spans, chunks[::-1])
    for _ in range(2):  # as for another decoder
        sent: Chunks = []

        async def forward(index: int, chunk: tensor_pb2.FeatureChunk, sent: Chunks = sent) -> None:
            sent.append(BroughtChunk(index, chunk))

        for index in found.needed({0, 1}):
            await found.send(index, {0, 1}, forward, by_s=0.0)
        assert sorted(sent, key=str) == sorted(chunks, key=str)
    assert found.count == 2
    sizes = (len(chunk.values.data) + len(chunk.scales.data) for _, chunk in chunks)
    assert found.size_bytes == sum(sizes)


@pytest.mark.parametrize("form", features.FORMS)
def test_a_digest_does_not_depend_on_how_features_are_cut(form: str) -> None:
    whole = list(features.to_chunks(values(1), form))
    assert len(whole) == SHAPE.level_count
    assert features.digest(whole) == features.digest(rows(1, form)[::-1])
    other = features.to_chunks(values(1) + 1, form)
    assert features.digest(list(other)) != features.digest(whole)


def changed(at: int, **fields: Any) -> Callable[[Chunks], Chunks]:
    """One chunk with other fields, its own or its values', and no checksum that would tell."""

    def change(chunks: Chunks) -> Chunks:
        chunk = tensor_pb2.FeatureChunk()
        chunk.CopyFrom(chunks[at].chunk)
        chunk.ClearField("crc32")
        for name, value in fields.items():
            if name == "shape":
                chunk.values.shape[:] = value
            else:
                setattr(chunk if name in ("level", "row_offset") else chunk.values, name, value)
        return [*chunks[:at], BroughtChunk(chunks[at].span_index, chunk), *chunks[at + 1 :]]

    return change


ROW = 4 * SHAPE.hidden_size
NAN = np.full(SHAPE.hidden_size, np.nan, np.float32).tobytes()


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (lambda chunks: chunks[:-1], "features", Reason.INVALID_SPAN),
        (lambda chunks: [], "features", Reason.INVALID_SPAN),
        (lambda chunks: chunks[:12], "features", Reason.INVALID_SPAN),
        (
            lambda chunks: [BroughtChunk(2, chunks[0].chunk)],
            "features.span_index",
            Reason.INVALID_SPAN,
        ),
        (
            lambda chunks: [BroughtChunk(-1, chunks[0].chunk)],
            "features.span_index",
            Reason.INVALID_SPAN,
        ),
        (
            lambda chunks: [*chunks, chunks[0]],
            "features.chunk.row_offset",
            Reason.INVALID_SPAN,
        ),
        (changed(0, level=3), "features.chunk.level", Reason.INVALID_SPAN),
        (changed(0, level=-1), "features.chunk.level", Reason.INVALID_SPAN),
        (changed(0, row_offset=4), "features.chunk.row_offset", Reason.INVALID_SPAN),
        (changed(0, row_offset=-1), "features.chunk.row_offset", Reason.INVALID_SPAN),
        (changed(0, data=b"", shape=[0, 8]), "features.chunk.row_offset", Reason.INVALID_SPAN),
        (
            changed(0, data=bytes(ROW - 4), shape=[1, 7]),
            "features.chunk.values",
            Reason.SHAPE_MISMATCH,
        ),
        (changed(0, data=bytes(ROW - 4)), "features.chunk.values", Reason.SHAPE_MISMATCH),
        (changed(0, data=bytes(ROW), shape=[8]), "features.chunk.row_offset", Reason.INVALID_SPAN),
        (
            changed(0, data=bytes(ROW // 2), dtype=tensor_pb2.DTYPE_BFLOAT16),
            "features.chunk.values.dtype",
            Reason.UNSUPPORTED_DTYPE,
        ),
        (changed(0, data=bytes(CHUNK_BYTES + ROW)), "features.chunk.values", Reason.SHAPE_MISMATCH),
        (changed(0, data=NAN), "features.chunk.values", Reason.NON_FINITE),
        (changed(0, data=bytes(ROW)), "span_features[0].digest", Reason.INVALID_PARAMETER),
        (changed(12, data=bytes(ROW)), "span_features[1].digest", Reason.INVALID_PARAMETER),
    ],
)
async def test_what_is_wrong_is_refused_by_name(
    threads: Threads, change: Callable[[Chunks], Chunks], field: str, reason: Reason
) -> None:
    spans, chunks = brought()
    with pytest.raises(ServiceError) as caught:
        await received(threads, spans, change(chunks))
    assert (caught.value.param, caught.value.reason) == (field, reason)


async def test_bytes_damaged_on_the_way_are_told_apart_from_a_wrong_digest(
    threads: Threads,
) -> None:
    spans, chunks = brought()
    chunks[0].chunk.values.data = bytes(ROW)
    with pytest.raises(ServiceError) as caught:
        await received(threads, spans, chunks)
    assert caught.value.reason is Reason.DATA_LOSS


async def test_features_that_come_too_slowly_are_given_up(threads: Threads) -> None:
    spans, chunks = brought()

    async def slow() -> AsyncIterator[BroughtChunk]:
        yield chunks[0]
        await asyncio.sleep(30)

    with pytest.raises(DeadlineExceeded):
        await BroughtFeatures(spans, SHAPE, threads=threads).receive(
            slow(), by_s=time.monotonic() + 0.1
        )


async def test_a_prompt_without_spans_wants_no_features(threads: Threads) -> None:
    found = await received(threads, [], [])
    assert (found.count, found.size_bytes) == (0, 0)
    with pytest.raises(ServiceError) as caught:
        await received(threads, [], brought()[1])
    assert caught.value.param == "features.span_index"
