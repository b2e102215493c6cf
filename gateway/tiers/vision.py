"""The gateway's end of the wire to the vision tier.

The only place that retries: one `Encode` or `SampleVideo`, once, on UNAVAILABLE, as long as
nothing of it was passed on.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import grpc

from gateway.media.images import PlannedImage, TierLimits
from gateway.media.video_plans import PlannedFrames
from gateway.request.deadlines import seconds_left
from gateway.tiers.convert import (
    encode_to_proto,
    sampled_from_proto,
    sampling_to_proto,
    vision_error_for_client,
)
from gateway.tiers.pace import EncodePace
from gateway.tiers.router import Endpoint, Router
from gateway.tiers.tier import LOOK_TIMEOUT_S, Report, TierClient, code_of
from protos.media.images import Grid
from protos.media.videos import FrameSampling, SampledFrames
from protos.process import tracing
from protos.tandem.v1 import tensor_pb2, vision_pb2, vision_pb2_grpc
from protos.wire.credentials import CredentialFiles
from protos.wire.errors import DeadlineExceeded, Reason, ServiceError, from_rpc_error

logger = logging.getLogger(__name__)

# What clients and operators can do about an image that takes too long.
_HELP = (
    "detail low or max_pixels make it smaller; the server's settings are max_image_tokens,"
    " encode_deadline_s, encode_patches_per_s and request_deadline_s"
)

Encodable = PlannedImage | PlannedFrames
Forward = Callable[[tensor_pb2.FeatureChunk], Awaitable[None]]


class VisionClient(TierClient):
    """Encodes images and videos, and has frames of videos chosen."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        bundle_digest: str,
        level_count: int,
        watch_interval_s: float,
        files: CredentialFiles | None = None,
    ) -> None:
        super().__init__(
            Router("vision", addresses, unavailable=Reason.VISION_UNAVAILABLE),
            report=_report,
            bundle_digest=bundle_digest,
            watch_interval_s=watch_interval_s,
            files=files,
        )
        self.retries = 0  # encodings asked for again, since the start
        self._level_count = level_count  # 1 + DeepStack levels
        self._pace = EncodePace()

    @property
    def image_limits(self) -> tuple[TierLimits, ...]:
        """What each address last said one image may be; any of them may get any image."""
        found = (endpoint.image_limits for endpoint in self.router.endpoints)
        return tuple(limits for limits in found if limits is not None)

    async def encode(
        self, image: Encodable, *, request_id: str, by_s: float, forward: Forward
    ) -> vision_pb2.EncodeSummary:
        """Encodes one image or some frames, passing each chunk to `forward` as it comes.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
            DeadlineExceeded: time is up, or cannot be enough at the tier's recent pace.
        """
        self._check_time(image, by_s)
        first = await self.ready()
        try:
            return await self._encode_at(first, image, request_id, by_s, forward)
        except _NotStarted:
            self.retries += 1
            second = await self.ready(avoid=(first,))
        try:
            return await self._encode_at(second, image, request_id, by_s, forward)
        except _NotStarted as failure:
            raise failure.error from failure

    async def sample(
        self, file: bytes, sampling: FrameSampling, *, field: str, request_id: str, by_s: float
    ) -> SampledFrames:
        """Has frames of a video chosen.

        Args:
            file: The video.
            sampling: How they are to be chosen.
            field: Its place in the request, for errors.
            request_id: Travels with the call.
            by_s: When the answer must be here.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
        """
        request = sampling_to_proto(
            file, sampling, request_id=request_id, bundle_digest=self.bundle_digest
        )
        first = await self.ready()
        try:
            return await self._sample_at(first, request, field, by_s)
        except _NotStarted:
            second = await self.ready(avoid=(first,))
        try:
            return await self._sample_at(second, request, field, by_s)
        except _NotStarted as failure:
            raise failure.error from failure

    async def _sample_at(
        self, endpoint: Endpoint, request: vision_pb2.SampleVideoRequest, field: str, by_s: float
    ) -> SampledFrames:
        stub = vision_pb2_grpc.VisionServiceStub(self.channels[endpoint])
        metadata = tracing.metadata(request.request_id)
        try:
            answer = await stub.SampleVideo(request, timeout=seconds_left(by_s), metadata=metadata)
        except grpc.RpcError as error:
            self.note_failure(endpoint, error)
            failure = vision_error_for_client(
                from_rpc_error(error, unavailable=Reason.VISION_UNAVAILABLE), field=field
            )
            if code_of(error) is grpc.StatusCode.UNAVAILABLE:
                raise _NotStarted(failure) from error
            raise failure from error
        return sampled_from_proto(answer)

    def _check_time(self, image: Encodable, by_s: float) -> None:
        """Refuses an image that cannot be ready in time, before any work is spent on it."""
        pace, left_s = self._pace.patches_per_s(), seconds_left(by_s)
        patches = image.grid.patches
        if pace is not None and patches / pace > left_s:
            raise DeadlineExceeded(
                f"{image.field} needs about {patches / pace:.0f} s of encoding ({patches} patches"
                f" at {pace:.3g} a second), the request has {left_s:.0f} s left for it; {_HELP}",
                param=image.field,
            )

    async def _encode_at(
        self,
        endpoint: Endpoint,
        image: Encodable,
        request_id: str,
        by_s: float,
        forward: Forward,
    ) -> vision_pb2.EncodeSummary:
        reading = _FeatureReader(image, self._level_count)
        stub = vision_pb2_grpc.VisionServiceStub(self.channels[endpoint])
        request = encode_to_proto(image, request_id=request_id, bundle_digest=self.bundle_digest)
        begun_s = time.monotonic()
        call = stub.Encode(
            request, timeout=seconds_left(by_s), metadata=tracing.metadata(request_id)
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
            if isinstance(failure, DeadlineExceeded):
                raise _too_slow(image, time.monotonic() - begun_s) from error
            raise failure from error
        finally:
            call.cancel()
            endpoint.calls -= 1
        summary = reading.summary()
        self._pace.note(image.grid.patches, summary.encode_ms)
        return summary


def _too_slow(image: Encodable, spent_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{image.field} was not encoded within {spent_s:.1f} s ({image.grid.patches} patches);"
        f" {_HELP}",
        param=image.field,
    )


async def _report(channel: grpc.aio.Channel) -> Report:
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    request = vision_pb2.GetVisionModelInfoRequest()
    info = await stub.GetModelInfo(request, timeout=LOOK_TIMEOUT_S)
    return Report(bundle_digest=info.bundle_digest, image_limits=_limits(info))


def _limits(info: tensor_pb2.ModelInfo) -> TierLimits | None:
    """None from a tier of an earlier release, which does not say."""
    if not (info.max_image_bytes and info.max_image_pixels and info.max_image_patches):
        return None
    return TierLimits(
        max_image_bytes=info.max_image_bytes,
        max_image_pixels=info.max_image_pixels,
        max_image_patches=info.max_image_patches,
        max_video_bytes=info.max_video_bytes,
        max_video_seconds=info.max_video_seconds,
    )


class _NotStarted(Exception):
    """UNAVAILABLE before the first message; the call may be made once more."""

    def __init__(self, error: ServiceError) -> None:
        self.error = error


class _FeatureReader:
    """Checks an Encode stream against what was planned, so that no image is half used."""

    def __init__(self, image: Encodable, level_count: int) -> None:
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
