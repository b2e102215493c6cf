"""A vision tier and a decoder that answer from scripts over real gRPC, in this event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Self

import grpc
import numpy as np

from protos.bundle.manifest import Bundle
from protos.media.limits import invalid_pdf
from protos.process.server import GrpcServer
from protos.tandem.v1 import (
    decoder_pb2,
    decoder_pb2_grpc,
    tensor_pb2,
    vision_pb2,
    vision_pb2_grpc,
)
from protos.wire import features, tensors
from protos.wire.channels import LARGE_MESSAGE_BYTES
from protos.wire.credentials import Credentials
from protos.wire.errors import InvalidRequest, ModelMismatch, ServiceError, reporting_errors

Context = grpc.aio.ServicerContext[Any, Any]

ROWS_PER_CHUNK = 16


class FakeTier:
    """A gRPC server on a free port, or on the port of one that was stopped."""

    def __init__(self, bundle: Bundle, *, port: int = 0) -> None:
        self.bundle = bundle
        self.digest = bundle.digest
        self.port = port
        self.address = ""
        self.credentials: Credentials | None = None

    def register(self, server: grpc.aio.Server) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        self.server = GrpcServer(
            host="127.0.0.1",
            port=self.port,
            max_receive_bytes=LARGE_MESSAGE_BYTES,
            drain_timeout_s=0.0,
            credentials=self.credentials,
        )
        self.register(self.server.server)
        self.port = self.server.port
        self.address = f"127.0.0.1:{self.port}"
        await self.server.__aenter__()
        await self.server.set_serving(True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """Stops at once: every call breaks, nobody listens any more."""
        await self.server.server.stop(None)

    def model_info(self, max_context: int = 0) -> tensor_pb2.ModelInfo:
        manifest = self.bundle.manifest
        return tensor_pb2.ModelInfo(
            bundle_digest=self.digest,
            family=manifest.family,
            model_id=manifest.model_id,
            hidden_size=manifest.text.hidden_size,
            deepstack_level_count=manifest.deepstack_level_count,
            max_context=max_context,
        )


class FakeVision(FakeTier, vision_pb2_grpc.VisionServiceServicer):
    """Encodes every image to rows of its call's number.

    `failures` are raised by the next calls, before their first message. With `hold` set, calls
    wait after their header until they are cancelled or `release` is set. Their times come
    `summary_delay_s` after their features.
    """

    def __init__(self, bundle: Bundle, *, port: int = 0) -> None:
        super().__init__(bundle, port=port)
        self.max_image_bytes = 10 << 20
        self.max_image_pixels = 65_000_000
        self.max_image_patches = 65_536
        self.reset()

    def reset(self) -> None:
        self.requests: list[vision_pb2.EncodeRequest] = []
        self.samplings: list[vision_pb2.SampleVideoRequest] = []
        self.renderings: list[vision_pb2.RenderPdfRequest] = []
        self.pages: Sequence[tuple[bytes, str]] = ()
        self.reads_pdfs = True  # false as in releases before
        self.time_left_s: list[float | None] = []
        self.encode_ms = 3.0
        self.failures: list[ServiceError] = []
        self.failures_midway: list[ServiceError] = []
        self.rows_short = 0
        self.summary_delay_s = 0.0
        self.hold = False
        self.holding = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        vision_pb2_grpc.add_VisionServiceServicer_to_server(self, server)

    async def GetModelInfo(
        self, request: vision_pb2.GetVisionModelInfoRequest, context: Context
    ) -> tensor_pb2.ModelInfo:
        info = self.model_info()
        info.max_image_bytes = self.max_image_bytes
        info.max_image_pixels = self.max_image_pixels
        info.max_image_patches = self.max_image_patches
        return info

    async def Encode(
        self, request: vision_pb2.EncodeRequest, context: Context
    ) -> AsyncIterator[vision_pb2.EncodeChunk]:
        async with reporting_errors(context):
            self.requests.append(request)
            self.time_left_s.append(context.time_remaining())
            if self.failures:
                raise self.failures.pop(0)
            grid = request.expected_grid_thw
            count = grid.t * grid.h * grid.w // 4 - self.rows_short
            levels = 1 + self.bundle.manifest.deepstack_level_count
            header = vision_pb2.EncodeHeader(
                grid_thw=grid, token_count=count + self.rows_short, level_count=levels
            )
            yield vision_pb2.EncodeChunk(header=header)
            await self._wait_if_held()
            for level in range(levels):
                for row in range(0, count, ROWS_PER_CHUNK):
                    rows = min(ROWS_PER_CHUNK, count - row)
                    yield vision_pb2.EncodeChunk(features=self._chunk(level, row, rows))
                    if self.failures_midway:
                        raise self.failures_midway.pop(0)
            await asyncio.sleep(self.summary_delay_s)
            summary = vision_pb2.EncodeSummary(
                queue_ms=1.0, preprocess_ms=2.0, encode_ms=self.encode_ms
            )
            yield vision_pb2.EncodeChunk(summary=summary)

    async def SampleVideo(
        self, request: vision_pb2.SampleVideoRequest, context: Context
    ) -> vision_pb2.SampledVideo:
        """As many frames of 64 x 64 pixels as were wanted, or as may be, two a second."""
        async with reporting_errors(context):
            self.samplings.append(request)
            if self.failures:
                raise self.failures.pop(0)
            count = request.frame_count or request.max_frames
            frames = [vision_pb2.SampledFrame(index=3 * at, seconds=at / 2) for at in range(count)]
            return vision_pb2.SampledVideo(frames=frames, width=64, height=64)

    async def RenderPdf(
        self, request: vision_pb2.RenderPdfRequest, context: Context
    ) -> AsyncIterator[vision_pb2.PdfPage]:
        """The scripted `pages` of a file that goes on behind its head."""
        async with reporting_errors(context):
            self.renderings.append(request)
            if not self.reads_pdfs:
                await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            if self.failures:
                raise self.failures.pop(0)
            if len(request.file) < 16:
                raise invalid_pdf("pdf", "is no PDF that can be read")
            for image, text in self.pages:
                yield vision_pb2.PdfPage(image=image, text=text)

    async def _wait_if_held(self) -> None:
        if self.hold:
            self.holding.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    def _chunk(self, level: int, row: int, rows: int) -> tensor_pb2.FeatureChunk:
        shape = (rows, self.bundle.manifest.text.hidden_size)
        values = np.full(shape, len(self.requests), dtype=np.float32)
        chunk = features.to_proto(values, level=level, row_offset=row, form="float32")
        if not self.requests[-1].HasField("video"):
            chunk.crc32 = 7  # nobody on the way makes another
        return chunk


class FakeDecoder(FakeTier, decoder_pb2_grpc.DecoderServiceServicer):
    """Answers every prompt with `tokens`, one message each, once all its features are there.

    It goes on behind the tokens of an output that was begun elsewhere.
    `failure` is raised before admission, `moved_failures` before those of outputs begun elsewhere.
    `failure_after` so many tokens ends a call, `failure_once_after` one that begins here. With
    `stall_after` set, calls stop after that many tokens until they are cancelled, and with
    `is_mute` nothing else is answered from then on; with `pause_after`, until `resume`.
    `cached_spans` are not asked for. With `is_hasty`, it answers before the gateway has finished
    sending.
    """

    def __init__(self, bundle: Bundle, *, port: int = 0, max_context: int = 4096) -> None:
        super().__init__(bundle, port=port)
        self.max_context = max_context
        self.reset()

    def reset(self) -> None:
        self.tokens: Sequence[int] = ()
        self.finish_reason: decoder_pb2.FinishReason = decoder_pb2.FINISH_REASON_STOP
        self.starts: list[decoder_pb2.GenerateStart] = []
        self.features: list[tuple[str, decoder_pb2.SpanFeatures]] = []
        self.time_left_s: list[float | None] = []
        self.metadata: list[dict[str, Any]] = []
        self.failure: ServiceError | None = None
        self.failure_after: tuple[int, ServiceError] | None = None
        self.failure_once_after: tuple[int, ServiceError] | None = None
        self.moved_failures: list[ServiceError] = []
        self.is_mute = False
        self.stall_after: int | None = None
        self.pause_after: int | None = None
        self.resume = asyncio.Event()
        self.has_been_asked = asyncio.Event()
        self.stalling = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cached_spans: frozenset[int] = frozenset()
        self.needed_too: list[int] = []
        self.is_hasty = False
        self.cached_tokens = 0
        self.ends_without_completion = False

    def register(self, server: grpc.aio.Server) -> None:
        decoder_pb2_grpc.add_DecoderServiceServicer_to_server(self, server)

    async def GetModelInfo(
        self, request: decoder_pb2.GetDecoderModelInfoRequest, context: Context
    ) -> tensor_pb2.ModelInfo:
        return self.model_info(self.max_context)

    async def GetLoad(
        self, request: decoder_pb2.GetLoadRequest, context: Context
    ) -> decoder_pb2.DecoderLoad:
        if self.is_mute and self.stalling.is_set():
            await asyncio.Event().wait()
        return decoder_pb2.DecoderLoad(slot_count=4)

    async def Generate(
        self, requests: AsyncIterator[decoder_pb2.GenerateRequest], context: Context
    ) -> AsyncIterator[decoder_pb2.GenerateResponse]:
        completed = False
        try:
            async with reporting_errors(context):
                start = (await anext(requests)).start
                self._note(start, context)
                if self.failure is not None:
                    raise self.failure
                if start.output_ids and self.moved_failures:
                    raise self.moved_failures.pop(0)
                spans = range(len(start.visual_spans))
                needed = [span for span in spans if span not in self.cached_spans]
                needed += self.needed_too
                yield decoder_pb2.GenerateResponse(
                    admission=decoder_pb2.Admission(
                        needed_spans=needed, cached_tokens=self.cached_tokens
                    )
                )
                await self._receive(requests, start, needed)
                for at, token in enumerate(self.tokens):
                    if at < len(start.output_ids):
                        assert start.output_ids[at] == token, "another answer than was begun"
                        continue
                    await self._obstacle(at, start)
                    yield decoder_pb2.GenerateResponse(tokens=self._chunk(start, token))
                await self._obstacle(len(self.tokens), start)
                if not self.ends_without_completion:
                    yield decoder_pb2.GenerateResponse(completion=self._completion(start))
                completed = True
        finally:
            # gRPC ends the requests of a cancelled call a moment before it cancels the handler.
            if not completed:
                self.cancelled.set()

    def _note(self, start: decoder_pb2.GenerateStart, context: Context) -> None:
        self.starts.append(start)
        self.has_been_asked.set()
        self.time_left_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata() or ()))
        if start.bundle_digest != self.digest:
            raise ModelMismatch("another bundle")

    async def _receive(
        self,
        requests: AsyncIterator[decoder_pb2.GenerateRequest],
        start: decoder_pb2.GenerateStart,
        needed: Sequence[int],
    ) -> None:
        levels = 1 + self.bundle.manifest.deepstack_level_count
        missing = {
            (span, level, row)
            for span in needed
            for level in range(levels)
            for row in range(start.visual_spans[span].length)
        }
        while missing:
            request = await anext(requests, None)
            if request is None:
                raise InvalidRequest("features are missing", param="features")
            message, chunk = request.features, request.features.chunk
            rows = range(chunk.row_offset, chunk.row_offset + chunk.values.shape[0])
            # `remove` fails when a row comes twice or belongs to no needed span.
            for row in rows:
                missing.remove((message.span_index, chunk.level, row))
            self.features.append((start.request_id, message))
        if self.is_hasty:
            return
        async for extra in requests:
            raise AssertionError(f"nothing may follow the features, got {extra}")

    async def _obstacle(self, at: int, start: decoder_pb2.GenerateStart) -> None:
        failure = self.failure_after
        if failure is None and not start.output_ids:
            failure = self.failure_once_after
        if failure is not None and failure[0] == at:
            raise failure[1]
        if self.pause_after == at:
            self.stalling.set()
            await self.resume.wait()
        if self.stall_after == at:
            self.stalling.set()
            await asyncio.Event().wait()

    def _chunk(self, start: decoder_pb2.GenerateStart, token: int) -> decoder_pb2.TokenChunk:
        chunk = decoder_pb2.TokenChunk(token_ids=[token])
        options = start.report_options
        if options.logprobs:
            top = [
                decoder_pb2.TopLogprob(token_id=token + at, logprob=-0.5 - at)
                for at in range(options.top_logprob_count)
            ]
            chunk.logprobs.append(decoder_pb2.TokenLogprobs(logprob=-0.5, top=top))
        if options.logits:
            row = np.full((1, self.bundle.manifest.text.vocab_size), token, dtype=np.float32)
            chunk.logits.CopyFrom(tensors.to_proto(row))
        return chunk

    def _completion(self, start: decoder_pb2.GenerateStart) -> decoder_pb2.Completion:
        stopped = self.finish_reason == decoder_pb2.FINISH_REASON_STOP
        return decoder_pb2.Completion(
            finish_reason=self.finish_reason,
            prompt_tokens=len(start.input_ids),
            completion_tokens=len(self.tokens) + int(stopped),
            cached_tokens=self.cached_tokens,
            timings=decoder_pb2.GenerateTimings(
                queue_ms=1.0,
                features_ms=50.0 if start.visual_spans else 0.0,
                prefill_ms=5.0,
                first_token_ms=60.0,
                decode_ms=7.0,
            ),
        )
