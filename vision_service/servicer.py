"""The RPC layer of the vision tier: checks requests, hands them to the encoders, streams back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from protos.bundle.manifest import Bundle
from protos.media.images import Grid
from protos.media.limits import LEAST_PAGE_PIXELS, MOST_PAGE_PIXELS, MOST_PDF_PAGES
from protos.process.request_log import RequestRecord, recording
from protos.process.tracing import TRACEPARENT
from protos.tandem.v1 import tensor_pb2, vision_pb2, vision_pb2_grpc
from protos.wire import tensors
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ModelMismatch,
    Reason,
    Unavailable,
    reporting_errors,
)
from protos.wire.sampling import check_range
from vision_service.image_requests import areas_from_proto, encoded_to_proto, planned_patches
from vision_service.jobs import (
    Encoded,
    EncodedImage,
    EncodeJob,
    Encoders,
    Patches,
    Pdfs,
    Videos,
)
from vision_service.metrics import VisionMetrics
from vision_service.video_requests import (
    VideoSource,
    frames_from_proto,
    sampled_to_proto,
    sampling_from_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


class VisionServicer(vision_pb2_grpc.VisionServiceServicer):
    """VisionService; refuses work until `encoders` is set.

    Args:
        bundle: What this tier serves.
        videos: Reads videos.
        pdfs: Reads PDFs.
        max_patches: Most patches of one image.
        max_bytes: Most bytes of an image's file; only told here, the replicas check it.
        max_pixels: Most pixels of one image before it is resized; only told, too.
        max_video_bytes: Most bytes of a video's file; only told, `videos` checks it.
        max_video_seconds: Longest video; only told, too.
        max_pdf_bytes: Most bytes of a PDF; only told, `pdfs` checks it. 0: none are read.
        encode_timeout_s: Longest an Encode call may take where its deadline is later.
        form: What features are sent in.
    """

    def __init__(
        self,
        bundle: Bundle,
        videos: Videos,
        pdfs: Pdfs,
        *,
        max_patches: int,
        max_bytes: int,
        max_pixels: int,
        max_video_bytes: int,
        max_video_seconds: float,
        max_pdf_bytes: int,
        encode_timeout_s: float,
        form: str = "float32",
    ) -> None:
        self.encoders: Encoders | None = None
        self._bundle = bundle
        self._videos = videos
        self._pdfs = pdfs
        self._max_patches = max_patches
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._max_video_bytes = max_video_bytes
        self._max_video_seconds = max_video_seconds
        self._max_pdf_bytes = max_pdf_bytes
        self._encode_timeout_s = encode_timeout_s
        self._form = form
        self.metrics = VisionMetrics()

    async def Encode(
        self, request: vision_pb2.EncodeRequest, context: Context
    ) -> AsyncIterator[vision_pb2.EncodeChunk]:
        """See vision.proto."""
        async with (
            reporting_errors(context),
            self.encoding(request, context) as encoded,
        ):
            for chunk in encoded_to_proto(encoded, self._form):
                yield chunk

    @asynccontextmanager
    async def encoding(
        self, request: vision_pb2.EncodeRequest, context: Context
    ) -> AsyncIterator[Encoded]:
        """Encodes, and keeps the request's record open while the block answers it.

        Raises:
            ServiceError: the request is refused, or could not be encoded.
        """
        request_id = request.request_id or _id_in_metadata(context)
        size = request.ByteSize()
        with (
            recording(
                "vision",
                request_id,
                metrics=self.metrics,
                method="tandem.v1.VisionService/Encode",
                traceparent=_in_metadata(context, TRACEPARENT),
                bytes=size,
            ) as record,
            self.metrics.working(planned_patches(request)),
        ):
            encoders = self._ready(request)
            source = await self._read(request)
            encoded = await self._encode(encoders, source, context)
            record.note(image_tokens=encoded.features.shape[1])
            # Waiting falls into several pieces of which only the sum is known: told as the first.
            record.took(
                queue=encoded.summary.queue_ms,
                preprocess=encoded.summary.preprocess_ms,
                encode=encoded.summary.encode_ms,
            )
            record.note(feature_bytes=encoded.features.nbytes)
            yield encoded
            record.ended("ok")

    async def SampleVideo(
        self, request: vision_pb2.SampleVideoRequest, context: Context
    ) -> vision_pb2.SampledVideo:
        """See vision.proto."""
        async with self._reading("SampleVideo", request, context) as record:
            sampling = sampling_from_proto(request)
            async with self._timed(context):
                sampled = await self._videos.sample(request.file, sampling)
            record.note(frames=len(sampled.indices))
            record.ended("ok")
            return sampled_to_proto(sampled)

    async def RenderPdf(
        self, request: vision_pb2.RenderPdfRequest, context: Context
    ) -> AsyncIterator[vision_pb2.PdfPage]:
        """See vision.proto."""
        async with self._reading("RenderPdf", request, context) as record:
            check_range("page_pixels", request.page_pixels, LEAST_PAGE_PIXELS, MOST_PAGE_PIXELS)
            check_range("max_pages", request.max_pages, 1, MOST_PDF_PAGES)
            async with self._timed(context):
                pages = await self._pdfs.render(
                    request.file, page_pixels=request.page_pixels, max_pages=request.max_pages
                )
            record.note(pages=len(pages))
            for page in pages:
                yield vision_pb2.PdfPage(image=page.image, text=page.text)
            record.ended("ok")

    @asynccontextmanager
    async def _reading(
        self, method: str, request: "_ReadRequest", context: Context
    ) -> AsyncIterator[RequestRecord]:
        """A call about a file that is read beside the replicas, and its record."""
        async with reporting_errors(context):
            with recording(
                "vision",
                request.request_id or _id_in_metadata(context),
                metrics=self.metrics,
                method=f"tandem.v1.VisionService/{method}",
                traceparent=_in_metadata(context, TRACEPARENT),
                bytes=request.ByteSize(),
            ) as record:
                self._ready(request)
                yield record

    async def GetModelInfo(
        self, request: vision_pb2.GetVisionModelInfoRequest, context: Context
    ) -> tensor_pb2.ModelInfo:
        """See vision.proto."""
        manifest = self._bundle.manifest
        return tensor_pb2.ModelInfo(
            bundle_digest=self._bundle.digest,
            family=manifest.family,
            model_id=manifest.model_id,
            hidden_size=manifest.text.hidden_size,
            deepstack_level_count=manifest.deepstack_level_count,
            max_image_bytes=self._max_bytes,
            max_image_pixels=self._max_pixels,
            max_image_patches=self._max_patches,
            max_video_bytes=self._max_video_bytes,
            max_video_seconds=self._max_video_seconds,
            max_pdf_bytes=self._max_pdf_bytes,
        )

    def _ready(self, request: "vision_pb2.EncodeRequest | _ReadRequest") -> Encoders:
        if request.bundle_digest and request.bundle_digest != self._bundle.digest:
            raise ModelMismatch(
                "bundle_digest is not that of the bundle served here", param="bundle_digest"
            )
        if self.encoders is None:
            raise Unavailable("the vision tier is loading", retry_after_s=2.0)
        return self.encoders

    async def _read(self, request: vision_pb2.EncodeRequest) -> "_Source":
        if request.WhichOneof("source") == "patches":
            # They may be tens of megabytes, and checking them reads them all.
            return await asyncio.to_thread(self._to_source, request)
        return self._to_source(request)

    def _to_source(self, request: vision_pb2.EncodeRequest) -> "_Source":
        expected = None
        if request.HasField("expected_grid_thw"):
            expected = self._to_grid(request.expected_grid_thw, "expected_grid_thw")
        source = request.WhichOneof("source")
        if source == "image":
            return EncodedImage(
                data=request.image, expected_grid=expected, areas=areas_from_proto(request)
            )
        if source == "patches":
            return self._to_patches(request.patches, expected)
        if source == "video":
            return frames_from_proto(request.video, expected)
        raise InvalidRequest("image, patches or video must be set, got none", param="source")

    def _to_patches(self, patches: vision_pb2.Patches, expected: Grid | None) -> Patches:
        grid = self._to_grid(patches.grid_thw, "patches.grid_thw")
        if expected is not None and grid != expected:
            raise InvalidRequest(
                f"expected_grid_thw is {expected}, patches.grid_thw is {grid}",
                reason=Reason.SHAPE_MISMATCH,
                param="expected_grid_thw",
            )
        dims = self._bundle.manifest.vision
        width = dims.in_channels * dims.temporal_patch_size * dims.patch_size**2
        pixels = tensors.float32_from_proto(
            patches.pixel_values,
            field="patches.pixel_values",
            shape=(grid.patches, width),
        )
        return Patches(pixels, grid)

    def _to_grid(self, message: tensor_pb2.GridTHW, field: str) -> Grid:
        """Checks a grid; every product stays exact because Python's integers do not overflow."""
        merge = self._bundle.manifest.vision.spatial_merge_size
        grid = Grid(message.t, message.h, message.w)
        for name in ("t", "h", "w"):
            extent, step = getattr(grid, name), 1 if name == "t" else merge
            if extent < 1 or extent % step:
                raise InvalidRequest(
                    f"{field}.{name} is {extent}, expected a positive multiple of {step}",
                    reason=Reason.SHAPE_MISMATCH,
                    param=f"{field}.{name}",
                )
        if grid.patches > self._max_patches:
            raise InvalidRequest(
                f"{field} has {grid.patches} patches, at most {self._max_patches} are accepted",
                reason=Reason.IMAGE_TOO_LARGE,
                param=field,
            )
        return grid

    async def _encode(self, encoders: Encoders, source: "_Source", context: Context) -> Encoded:
        async with self._timed(context):
            if isinstance(source, EncodedImage | Patches):
                return await encoders.encode(EncodeJob(source=source))
            frames, grid = source
            begun_s = time.perf_counter()
            patches = await self._videos.patches(frames, grid)
            read_ms = (time.perf_counter() - begun_s) * 1e3
            encoded = await encoders.encode(EncodeJob(source=patches))
            encoded.summary.preprocess_ms += read_ms
            return encoded

    @asynccontextmanager
    async def _timed(self, context: Context) -> AsyncIterator[None]:
        """Ends the block when the call's time is over.

        Raises:
            DeadlineExceeded: it was.
        """
        left_s = context.time_remaining()
        limit_s = min(self._encode_timeout_s, left_s if left_s is not None else float("inf"))
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError as error:
            raise DeadlineExceeded(f"encoding took longer than {limit_s:.0f} s") from error


_Source = EncodedImage | Patches | VideoSource
_ReadRequest = vision_pb2.SampleVideoRequest | vision_pb2.RenderPdfRequest


def _id_in_metadata(context: Context) -> str:
    return _in_metadata(context, REQUEST_ID_KEY) or "-"


def _in_metadata(context: Context, key: str) -> str | None:
    value = dict(context.invocation_metadata() or ()).get(key)
    return value if isinstance(value, str) else None
