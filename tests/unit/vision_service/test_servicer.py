"""The RPC layer over a real channel, with fake encoders behind it."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protos.bundle.manifest import Bundle
from protos.media.images import Grid, PixelRange
from protos.process.server import GrpcServer
from protos.tandem.v1 import tensor_pb2, vision_pb2, vision_pb2_grpc
from protos.wire import features, tensors
from protos.wire.channels import (
    CHUNK_BYTES,
    LARGE_MESSAGE_BYTES,
    REQUEST_ID_KEY,
    channel_options,
)
from protos.wire.errors import Overloaded, Reason, ServiceError, from_rpc_error
from tests.support.manifests import small_manifest
from tests.unit.vision_service.fakes import FakeEncoders, FakePdfs, FakeVideos
from vision_service.jobs import EncodedImage, Patches
from vision_service.servicer import VisionServicer

WIDTH = 3 * 2 * 4 * 4
DIGEST = "d" * 64

BUNDLE = Bundle(
    path=Path("unused"),
    digest=DIGEST,
    manifest=small_manifest(
        model_id="tiny",
        text={"hidden_size": 8},
        vision={"hidden_size": 8, "out_hidden_size": 8, "patch_size": 4},
    ),
)


class Running:
    """A served servicer, its fake encoders and a stub."""

    def __init__(self, servicer: VisionServicer, encoders: FakeEncoders, stub: Any) -> None:
        self.servicer = servicer
        self.encoders = encoders
        self.stub = stub

    async def encode(self, request: Any, **options: Any) -> list[vision_pb2.EncodeChunk]:
        return [chunk async for chunk in self.stub.Encode(request, **options)]

    async def refusal(self, request: Any, **options: Any) -> ServiceError:
        with pytest.raises(grpc.RpcError) as caught:
            await self.encode(request, **options)
        return from_rpc_error(caught.value)


@asynccontextmanager
async def served(
    encoders: FakeEncoders, *, timeout_s: float = 10.0, form: str = "float32"
) -> AsyncIterator[Running]:
    servicer = VisionServicer(
        BUNDLE,
        FakeVideos(),
        FakePdfs(),
        max_patches=1000,
        max_bytes=9999,
        max_pixels=80_000,
        max_video_bytes=99_999,
        max_video_seconds=60.0,
        max_pdf_bytes=88_888,
        encode_timeout_s=timeout_s,
        form=form,
    )
    servicer.encoders = encoders
    server = GrpcServer(
        host="127.0.0.1", port=0, max_receive_bytes=LARGE_MESSAGE_BYTES, drain_timeout_s=0
    )
    vision_pb2_grpc.add_VisionServiceServicer_to_server(servicer, server.server)
    async with server:
        target = f"127.0.0.1:{server.port}"
        async with grpc.aio.insecure_channel(target, options=channel_options()) as channel:
            yield Running(servicer, encoders, vision_pb2_grpc.VisionServiceStub(channel))


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with served(FakeEncoders()) as it:
        yield it


async def test_a_pdf_becomes_its_pages_in_order(running: Running) -> None:
    request = vision_pb2.RenderPdfRequest(file=b"a pdf", page_pixels=640, max_pages=7)
    pages = [page async for page in running.stub.RenderPdf(request)]
    assert [(page.image, page.text) for page in pages] == [
        (b"a pdf", "640 pixels"),
        (b"a pdf", "7 pages"),
    ]
    info = await running.stub.GetModelInfo(vision_pb2.GetVisionModelInfoRequest())
    assert info.max_pdf_bytes == 88_888


@pytest.mark.parametrize(
    ("field", "value"),
    [("page_pixels", 0), ("page_pixels", 1601), ("max_pages", 0), ("max_pages", 1001)],
)
async def test_pages_out_of_range_are_refused_by_field(
    running: Running, field: str, value: int
) -> None:
    request = vision_pb2.RenderPdfRequest(file=b"a pdf", page_pixels=640, max_pages=7)
    setattr(request, field, value)
    with pytest.raises(grpc.RpcError) as caught:
        async for _ in running.stub.RenderPdf(request):
            pass
    assert from_rpc_error(caught.value).param == field


def grid_message(t: int, h: int, w: int) -> tensor_pb2.GridTHW:
    return tensor_pb2.GridTHW(t=t, h=h, w=w)


def patches(t: int = 1, h: int = 4, w: int = 6, **changes: Any) -> vision_pb2.EncodeRequest:
    pixels = changes.get("pixels")
    if pixels is None:
        pixels = np.ones((24, WIDTH), dtype=np.float32)
    message = vision_pb2.Patches(
        pixel_values=tensors.to_proto(pixels), grid_thw=grid_message(t, h, w)
    )
    return vision_pb2.EncodeRequest(patches=message)


def level(chunks: list[vision_pb2.EncodeChunk], index: int) -> Any:
    found = [c.features for c in chunks if c.WhichOneof("payload") == "features"]
    parts = [c for c in found if c.level == index]
    assert [c.row_offset for c in parts] == sorted({c.row_offset for c in parts})
    return np.concatenate(
        [tensors.float32_from_proto(c.values, field="values", shape=(None, None)) for c in parts]
    )


async def test_images_count_when_they_are_sent_and_not_before(running: Running) -> None:
    def value(name: str, **labels: str) -> float | None:
        registry = running.servicer.metrics.registry
        return registry.get_sample_value(f"tandem:vision_{name}", labels)

    chunks = await running.encode(patches())
    assert value("encode_seconds_count") == value("queue_seconds_count") == 1
    assert value("encode_seconds_sum") == pytest.approx(chunks[-1].summary.encode_ms / 1e3)
    assert value("image_tokens_total") == chunks[0].header.token_count
    levels = range(chunks[0].header.level_count)
    assert value("embedding_bytes_total") == 4 * sum(level(chunks, at).size for at in levels)
    assert (value("images"), value("patches")) == (0, 0)
    await running.refusal(patches(t=0))
    assert value("request_failures_total", reason="SHAPE_MISMATCH") == 1
    assert value("encode_seconds_count") == 1


async def test_a_stream_is_a_header_then_every_level_then_a_summary(running: Running) -> None:
    chunks = await running.encode(vision_pb2.EncodeRequest(image=b"bytes"))
    header, summary = chunks[0].header, chunks[-1].summary
    assert (header.grid_thw, header.token_count, header.level_count) == (
        grid_message(1, 4, 6),
        6,
        3,
    )
    assert (summary.queue_ms, summary.preprocess_ms, summary.encode_ms) == (1, 2, 3)
    for index in range(3):
        assert level(chunks, index)[:, 0].tolist() == [index * 1e6 + row for row in range(6)]
    assert running.encoders.jobs[0].source == EncodedImage(data=b"bytes")


@pytest.mark.parametrize("form", features.FORMS)
async def test_features_are_sent_in_the_form_of_the_settings(form: str) -> None:
    async with served(FakeEncoders(), form=form) as it:
        chunks = await it.encode(vision_pb2.EncodeRequest(image=b"bytes"))
    parts = [c.features for c in chunks if c.WhichOneof("payload") == "features"]
    assert {tensor_pb2.DType.Name(part.values.dtype) for part in parts} == {f"DTYPE_{form.upper()}"}
    rows = [features.values_from_proto(part, field="chunk", hidden_size=8) for part in parts[:3]]
    assert np.allclose(np.concatenate(rows)[:6, 0], range(6), atol=0.02)


async def test_areas_reach_the_encoders(running: Running) -> None:
    request = vision_pb2.EncodeRequest(image=b"bytes", min_pixels=64, max_pixels=1 << 33)
    await running.encode(request)
    areas = PixelRange(64, 1 << 33)
    assert running.encoders.jobs[0].source == EncodedImage(data=b"bytes", areas=areas)


async def test_chunks_hold_at_most_one_mebibyte_and_their_checksum() -> None:
    encoders = FakeEncoders(levels=2, hidden=2560)
    encoders.grid = Grid(1, 26, 38)  # 247 rows of 10 KiB: three chunks a level
    async with served(encoders) as running:
        chunks = await running.encode(vision_pb2.EncodeRequest(image=b"bytes"))
    features = [c.features for c in chunks[1:-1]]
    assert len(features) == 6
    for chunk in features:
        assert len(chunk.values.data) <= CHUNK_BYTES
        assert chunk.crc32 == zlib.crc32(chunk.values.data)
    assert level(chunks, 1).shape == (247, 2560)


async def test_patches_reach_the_encoders_as_they_were_sent(running: Running) -> None:
    pixels = np.arange(24 * WIDTH, dtype=np.float32).reshape(24, WIDTH)
    await running.encode(patches(pixels=pixels))
    source = running.encoders.jobs[0].source
    assert isinstance(source, Patches)
    assert source.grid == Grid(1, 4, 6)
    assert np.array_equal(source.pixel_values, pixels)


BAD_AREAS: tuple[dict[str, Any], ...] = (
    {"min_pixels": 1},
    {"max_pixels": 1},
    {"min_pixels": 0, "max_pixels": 1},
    {"min_pixels": 2, "max_pixels": 1},
)
NAN = np.full((24, WIDTH), np.nan, dtype=np.float32)
INF = np.full((24, WIDTH), np.inf, dtype=np.float32)


@pytest.mark.parametrize(
    ("request_", "reason", "param"),
    [
        (vision_pb2.EncodeRequest(), Reason.INVALID_PARAMETER, "source"),
        (patches(h=0), Reason.SHAPE_MISMATCH, "patches.grid_thw.h"),
        (patches(w=-2), Reason.SHAPE_MISMATCH, "patches.grid_thw.w"),
        (patches(t=0), Reason.SHAPE_MISMATCH, "patches.grid_thw.t"),
        (patches(t=-1), Reason.SHAPE_MISMATCH, "patches.grid_thw.t"),
        (patches(w=7), Reason.SHAPE_MISMATCH, "patches.grid_thw.w"),
        (patches(t=2), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
        (patches(h=2**31 - 2, w=2**31 - 2), Reason.IMAGE_TOO_LARGE, "patches.grid_thw"),
        (patches(h=4, w=8), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
        (patches(h=2), Reason.SHAPE_MISMATCH, "patches.pixel_values"),
        (patches(pixels=NAN), Reason.NON_FINITE, "patches.pixel_values"),
        (patches(pixels=INF), Reason.NON_FINITE, "patches.pixel_values"),
        (
            patches(pixels=np.ones((24, WIDTH), dtype=np.int32)),
            Reason.UNSUPPORTED_DTYPE,
            "patches.pixel_values",
        ),
        (
            vision_pb2.EncodeRequest(patches=vision_pb2.Patches(grid_thw=grid_message(1, 4, 6))),
            Reason.UNSUPPORTED_DTYPE,
            "patches.pixel_values",
        ),
        (
            vision_pb2.EncodeRequest(patches=vision_pb2.Patches()),
            Reason.SHAPE_MISMATCH,
            "patches.grid_thw.t",
        ),
        (
            vision_pb2.EncodeRequest(image=b"x", expected_grid_thw=grid_message(1, 3, 2)),
            Reason.SHAPE_MISMATCH,
            "expected_grid_thw.h",
        ),
        *(
            (vision_pb2.EncodeRequest(image=b"x", **areas), Reason.INVALID_PARAMETER, "min_pixels")
            for areas in BAD_AREAS
        ),
        (
            vision_pb2.EncodeRequest(image=b"x", bundle_digest="e" * 64),
            Reason.MODEL_MISMATCH,
            "bundle_digest",
        ),
    ],
)
async def test_a_malformed_request_is_refused_by_field(
    running: Running, request_: vision_pb2.EncodeRequest, reason: Reason, param: str
) -> None:
    error = await running.refusal(request_)
    assert (error.reason, error.param) == (reason, param)
    assert running.encoders.jobs == []


async def test_a_claimed_shape_is_refused_before_anything_is_allocated(running: Running) -> None:
    request = patches(h=20, w=20)
    request.patches.pixel_values.shape[:] = [400, WIDTH]
    request.patches.pixel_values.data = b"1234"
    error = await running.refusal(request)
    assert (error.reason, error.param) == (Reason.SHAPE_MISMATCH, "patches.pixel_values")


async def test_patches_must_have_the_grid_the_caller_planned_with(running: Running) -> None:
    request = patches()
    request.expected_grid_thw.CopyFrom(grid_message(1, 6, 4))
    error = await running.refusal(request)
    assert (error.reason, error.param) == (Reason.SHAPE_MISMATCH, "expected_grid_thw")


async def test_the_right_digest_is_accepted(running: Running) -> None:
    assert await running.encode(vision_pb2.EncodeRequest(image=b"x", bundle_digest=DIGEST))


async def test_requests_are_refused_while_the_tier_loads(running: Running) -> None:
    running.servicer.encoders = None
    error = await running.refusal(vision_pb2.EncodeRequest(image=b"x"))
    assert error.reason is Reason.LOADING
    assert error.retry_after_s is not None


async def test_an_error_of_the_encoders_reaches_the_client_whole(running: Running) -> None:
    running.encoders.error = Overloaded("full", retry_after_s=2.5)
    error = await running.refusal(vision_pb2.EncodeRequest(image=b"x"))
    assert (error.reason, error.retry_after_s) == (Reason.QUEUE_FULL, 2.5)


async def test_a_bug_reaches_the_client_without_its_text(running: Running) -> None:
    running.encoders.error = RuntimeError("secret path")
    error = await running.refusal(vision_pb2.EncodeRequest(image=b"x"))
    assert error.reason is Reason.INTERNAL
    assert "secret" not in error.message


async def test_cancelling_the_call_cancels_the_work(running: Running) -> None:
    running.encoders.hang = True
    call = running.stub.Encode(vision_pb2.EncodeRequest(image=b"x"))
    await asyncio.wait_for(running.encoders.began.wait(), 10)
    call.cancel()
    await asyncio.wait_for(running.encoders.cancelled.wait(), 10)


async def test_the_servers_own_time_limit_ends_a_call() -> None:
    encoders = FakeEncoders()
    encoders.hang = True
    async with served(encoders, timeout_s=0.05) as running:
        error = await running.refusal(vision_pb2.EncodeRequest(image=b"x"))
    assert error.reason is Reason.DEADLINE_EXCEEDED
    assert encoders.cancelled.is_set()


async def test_the_callers_deadline_ends_the_work(running: Running) -> None:
    running.encoders.hang = True
    error = await running.refusal(vision_pb2.EncodeRequest(image=b"x"), timeout=0.05)
    assert error.reason is Reason.DEADLINE_EXCEEDED
    await asyncio.wait_for(running.encoders.cancelled.wait(), 10)


async def test_the_model_info_names_the_bundle(running: Running) -> None:
    info = await running.stub.GetModelInfo(vision_pb2.GetVisionModelInfoRequest())
    assert (info.bundle_digest, info.hidden_size, info.deepstack_level_count) == (DIGEST, 8, 2)
    assert (info.family, info.model_id, info.max_context) == ("qwen3_vl", "tiny", 0)


async def test_the_model_info_tells_the_limits_of_images(running: Running) -> None:
    info = await running.stub.GetModelInfo(vision_pb2.GetVisionModelInfoRequest())
    assert (info.max_image_bytes, info.max_image_pixels) == (9999, 80_000)
    assert info.max_image_patches == 1000


async def test_each_request_leaves_one_line_without_its_content(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "protos.process.request_log")
    await running.encode(vision_pb2.EncodeRequest(request_id="one", image=b"secret"))
    await running.refusal(
        vision_pb2.EncodeRequest(), metadata=((REQUEST_ID_KEY, "of the metadata"),)
    )
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("request id=one tier=vision outcome=ok total_ms=")
    assert " bytes=13 image_tokens=6 queue_ms=1.0 preprocess_ms=2.0 encode_ms=3.0" in first
    assert first.endswith(" feature_bytes=576")
    assert second.startswith(
        "request id='of the metadata' tier=vision outcome=INVALID_PARAMETER total_ms="
    )
