"""The gateway's ends of the two inner wires: handshake, deadlines, retries, cancellation.

This is the only module that retries: one `Encode`, once, on UNAVAILABLE, as long as nothing of
it was passed on. A started stream is never retried.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from gateway.answer.events import Admitted, DecoderEnd, OutputToken
from gateway.media.images import PlannedImage
from gateway.request.constraint import ConstraintSpec
from gateway.request.deadlines import seconds_left
from gateway.tiers.convert import (
    admitted_from_proto,
    decoder_error_for_client,
    end_from_proto,
    grid_to_proto,
    tokens_from_proto,
    vision_error_for_client,
)
from gateway.tiers.router import Endpoint, Router
from gateway.tiers.tier import LOOK_TIMEOUT_S, TierClient, code_of
from protos.media.images import Grid
from protos.tandem.v1 import (
    decoder_pb2,
    decoder_pb2_grpc,
    tensor_pb2,
    vision_pb2,
    vision_pb2_grpc,
)
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import Reason, ServiceError, from_rpc_error

logger = logging.getLogger(__name__)

Forward = Callable[[tensor_pb2.FeatureChunk], Awaitable[None]]


class CallEnded(Exception):
    """The other side ended the call; reading from it tells why."""


class VisionClient(TierClient):
    """Encodes images."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        bundle_digest: str,
        level_count: int,
        watch_interval_s: float,
    ) -> None:
        router = Router("vision", addresses, unavailable=Reason.VISION_UNAVAILABLE)
        super().__init__(router, bundle_digest=bundle_digest, watch_interval_s=watch_interval_s)
        self._level_count = level_count  # 1 + DeepStack levels

    async def encode(
        self, image: PlannedImage, *, request_id: str, by_s: float, forward: Forward
    ) -> vision_pb2.EncodeSummary:
        """Encodes one image, passing each chunk of features to `forward` as it comes.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
        """
        first = await self.ready()
        try:
            return await self._encode_at(first, image, request_id, by_s, forward)
        except _NotStarted:
            second = await self.ready(avoid=first)
        try:
            return await self._encode_at(second, image, request_id, by_s, forward)
        except _NotStarted as failure:
            raise failure.error from failure

    async def _encode_at(
        self,
        endpoint: Endpoint,
        image: PlannedImage,
        request_id: str,
        by_s: float,
        forward: Forward,
    ) -> vision_pb2.EncodeSummary:
        reading = _FeatureReader(image, self._level_count)
        stub = vision_pb2_grpc.VisionServiceStub(self.channels[endpoint])
        request = vision_pb2.EncodeRequest(
            request_id=request_id,
            bundle_digest=self.bundle_digest,
            image=image.data,
            expected_grid_thw=grid_to_proto(image.grid),
        )
        call = stub.Encode(
            request, timeout=seconds_left(by_s), metadata=((REQUEST_ID_KEY, request_id),)
        )
        endpoint.calls += 1
        try:
            async for message in call:
                chunk = reading.take(message)
                if chunk is not None:
                    await forward(chunk)
        except grpc.RpcError as error:
            self.note_failure(endpoint, error)
            failure = vision_error_for_client(
                from_rpc_error(error, unavailable=Reason.VISION_UNAVAILABLE), field=image.field
            )
            if code_of(error) is grpc.StatusCode.UNAVAILABLE and not reading.started:
                raise _NotStarted(failure) from error
            raise failure from error
        finally:
            call.cancel()
            endpoint.calls -= 1
        return reading.summary()

    async def _model_info(self, channel: grpc.aio.Channel) -> tensor_pb2.ModelInfo:
        stub = vision_pb2_grpc.VisionServiceStub(channel)
        request = vision_pb2.GetVisionModelInfoRequest()
        info: tensor_pb2.ModelInfo = await stub.GetModelInfo(request, timeout=LOOK_TIMEOUT_S)
        return info


class _NotStarted(Exception):
    """UNAVAILABLE before the first message; the call may be made once more."""

    def __init__(self, error: ServiceError) -> None:
        self.error = error


class _FeatureReader:
    """Checks an Encode stream against what was planned, so that no image is half used."""

    def __init__(self, image: PlannedImage, level_count: int) -> None:
        self._image = image
        self._level_count = level_count
        self._rows_left = level_count * image.token_count
        self._summary: vision_pb2.EncodeSummary | None = None
        self.started = False

    def take(self, message: vision_pb2.EncodeChunk) -> tensor_pb2.FeatureChunk | None:
        """Notes one message; returns the features in it, if any."""
        self.started = True
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
            raise _broken("an incomplete answer")
        return self._summary

    def _check_header(self, header: vision_pb2.EncodeHeader) -> None:
        grid = Grid(header.grid_thw.t, header.grid_thw.h, header.grid_thw.w)
        planned = (self._image.grid, self._image.token_count, self._level_count)
        if (grid, header.token_count, header.level_count) != planned:
            raise _broken("features of another shape than planned")


def _broken(what: str) -> ServiceError:
    logger.error("the vision tier sent %s", what)
    return ServiceError(f"the vision tier sent {what}", reason=Reason.VISION_UNAVAILABLE)


class DecoderClient(TierClient):
    """Generates tokens."""

    def __init__(
        self, addresses: Sequence[str], *, bundle_digest: str, watch_interval_s: float
    ) -> None:
        router = Router("decoder", addresses, unavailable=Reason.DECODER_UNAVAILABLE)
        super().__init__(router, bundle_digest=bundle_digest, watch_interval_s=watch_interval_s)

    @asynccontextmanager
    async def generate(
        self,
        endpoint: Endpoint,
        start: decoder_pb2.GenerateStart,
        *,
        by_s: float,
        constraint: ConstraintSpec | None = None,
    ) -> AsyncIterator["GenerateCall"]:
        """Opens a Generate stream and sends its first message; leaving the block cancels it.

        `constraint` is what `start` holds, in the client's words for errors.
        """
        stub = decoder_pb2_grpc.DecoderServiceStub(self.channels[endpoint])
        call = stub.Generate(
            timeout=seconds_left(by_s), metadata=((REQUEST_ID_KEY, start.request_id),)
        )
        endpoint.calls += 1
        try:
            generating = GenerateCall(
                call, lambda error: self.note_failure(endpoint, error), constraint
            )
            # A call that failed at once tells why when it is read.
            with suppress(CallEnded):
                await generating.send(decoder_pb2.GenerateRequest(start=start))
            yield generating
        finally:
            call.cancel()
            endpoint.calls -= 1

    async def _model_info(self, channel: grpc.aio.Channel) -> tensor_pb2.ModelInfo:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        request = decoder_pb2.GetDecoderModelInfoRequest()
        info: tensor_pb2.ModelInfo = await stub.GetModelInfo(request, timeout=LOOK_TIMEOUT_S)
        return info

    async def _load(self, channel: grpc.aio.Channel) -> int:
        stub = decoder_pb2_grpc.DecoderServiceStub(channel)
        load = await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=LOOK_TIMEOUT_S)
        return int(load.running_count + load.waiting_count)


DecoderEvent = Admitted | tuple[OutputToken, ...] | DecoderEnd


class GenerateCall:
    """One Generate stream. Sends may come from several tasks, reads from one."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Any, Any],
        on_failure: Callable[[grpc.RpcError], None],
        constraint: ConstraintSpec | None,
    ) -> None:
        self._call = call
        self._constraint = constraint
        self._messages = aiter(call)
        self._on_failure = on_failure
        self._sending = asyncio.Lock()  # gRPC takes one message at a time

    async def send_features(self, span_index: int, chunk: tensor_pb2.FeatureChunk) -> None:
        """Passes on features; waits while the decoder is not reading.

        Raises:
            CallEnded: the decoder ended the call.
        """
        features = decoder_pb2.SpanFeatures(span_index=span_index, chunk=chunk)
        await self.send(decoder_pb2.GenerateRequest(features=features))

    async def send(self, message: decoder_pb2.GenerateRequest) -> None:
        """Sends one message.

        Raises:
            CallEnded: the decoder ended the call.
        """
        async with self._sending:
            try:
                await self._call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                raise CallEnded from error

    async def finish_sending(self) -> None:
        """Tells the decoder that all features are sent."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    async def read(self) -> DecoderEvent:
        """The next message.

        Raises:
            ServiceError: what the decoder answered, DECODER_UNAVAILABLE when it vanished, or
                DATA_LOSS when the stream ended early.
        """
        try:
            message = await anext(self._messages, None)
        except grpc.RpcError as error:
            self._on_failure(error)
            failure = from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE)
            raise decoder_error_for_client(failure, self._constraint) from error
        if message is None:
            raise ServiceError(
                "the decoder ended the stream before the answer was complete",
                reason=Reason.DATA_LOSS,
            )
        kind = message.WhichOneof("payload")
        if kind == "admission":
            return admitted_from_proto(message.admission)
        if kind == "tokens":
            return tokens_from_proto(message.tokens)
        return end_from_proto(message.completion)
