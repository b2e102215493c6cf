"""The gateway's end of the wire to the vision tier.

One `Encode`, `SampleVideo` or `RenderPdf` is made once more, at another address where there is one,
when the first attempt was UNAVAILABLE or stays silent far beyond what such calls take: as long as
nothing of it was passed on, within its deadline and a budget.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, TypeVar

import grpc

from gateway.fleet.budget import RetryBudget
from gateway.fleet.discovery import Discovery
from gateway.fleet.router import Endpoint, Router
from gateway.fleet.standing import Fault
from gateway.fleet.suspects import Suspects
from gateway.fleet.words import FirstWords
from gateway.media.images import TierLimits
from gateway.media.pdfs import Page, PdfLimits
from gateway.request.deadlines import seconds_left
from gateway.tiers.attempts import (
    Encodable,
    EncodeAttempt,
    FeaturesCut,
    Forward,
    ReadingAttempt,
    failure_of,
    is_cut,
    is_told,
)
from gateway.tiers.convert import (
    encode_to_proto,
    limits_from_proto,
    pages_from_proto,
    rendering_to_proto,
    sampled_from_proto,
    sampling_to_proto,
    vision_error_for_client,
)
from gateway.tiers.pace import EncodePace
from gateway.tiers.race import R, Race
from gateway.tiers.tier import LOOK_TIMEOUT_S, WAIT_STEP_S, Report, TierClient, code_of
from gateway.tiers.watch import Watching
from protos.media.videos import FrameSampling, SampledFrames
from protos.process import tracing
from protos.tandem.v1 import vision_pb2, vision_pb2_grpc
from protos.wire.credentials import CredentialFiles
from protos.wire.errors import (
    DeadlineExceeded,
    Reason,
    ServiceError,
    Unavailable,
    Unsupported,
    error_for,
)

# What clients and operators can do about an image that takes too long.
_HELP = (
    "detail low or max_pixels make it smaller; the server's settings are max_image_tokens,"
    " encode_deadline_s, encode_patches_per_s and request_deadline_s"
)

# Longest silence between two messages of features, which are all there when the first comes.
_BETWEEN_S = 10.0


T = TypeVar("T")
Stub = vision_pb2_grpc.VisionServiceStub
Asked = tuple[grpc.aio.Call, Callable[[], Awaitable[T]]]  # a call, and how to wait for its answer


class VisionClient(TierClient):
    """Encodes images and videos; has frames of videos chosen, and pages of PDFs made."""

    def __init__(
        self,
        discovery: Discovery,
        *,
        bundle_digest: str,
        level_count: int,
        watching: Watching,
        files: CredentialFiles | None = None,
    ) -> None:
        super().__init__(
            Router("vision", unavailable=Reason.VISION_UNAVAILABLE),
            discovery,
            report=_report,
            bundle_digest=bundle_digest,
            watching=watching,
            files=files,
        )
        self._level_count = level_count  # 1 + DeepStack levels
        self._pace = EncodePace()
        self._samplings = FirstWords()
        self._budget = RetryBudget()
        self._suspects = Suspects()

    @property
    def image_limits(self) -> tuple[TierLimits, ...]:
        """What each address last said one image may be; any of them may get any image."""
        limits = (endpoint.image_limits for endpoint in self.router.endpoints)
        return tuple(each for each in limits if each is not None)

    async def encode(
        self, image: Encodable, *, request_id: str, by_s: float, forward: Forward
    ) -> vision_pb2.EncodeSummary:
        """Encodes one image or some frames, passing each chunk to `forward` as it comes.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
            DeadlineExceeded: time is up, or cannot be enough at the tier's recent pace.
        """
        self._check_time(image, by_s)
        self._budget.called()
        begun_s = time.monotonic()
        while True:
            self._check_suspicion(image)
            race = self._race(image, request_id, by_s)
            try:
                async with race.winner() as attempt:
                    summary = await attempt.rest(forward, within_s=_BETWEEN_S)
            except DeadlineExceeded as error:
                raise self._late(image, time.monotonic() - begun_s, race.waited_s) from error
            except Unavailable as error:
                if race.is_won:
                    raise FeaturesCut(
                        error.message, reason=error.reason, retry_after_s=error.retry_after_s
                    ) from error
                if time.monotonic() >= begun_s + self._wait_s:
                    raise
                await asyncio.sleep(WAIT_STEP_S)
                continue
            self._note_won(race, attempt.endpoint)
            self._note_encoded(attempt, summary)
            return summary

    def _race(self, image: Encodable, request_id: str, by_s: float) -> Race[EncodeAttempt]:
        async def open_at(avoid: Collection[Endpoint]) -> EncodeAttempt:
            return self._attempt(await self.ready(avoid=avoid), image, request_id, by_s)

        return Race(
            open_at,
            patience_s=lambda first: self._patience_s(first, by_s),
            may_retry=lambda failure: self._may_retry(failure, image),
        )

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

        def ask(stub: Stub, **options: Any) -> Asked[vision_pb2.SampledVideo]:
            call = stub.SampleVideo(request, **options)
            return call, lambda: call

        begun_s = time.monotonic()
        try:
            within_s = self._samplings.within_s()
            answer = await self._read(ask, within_s, field, request_id, by_s)
        finally:
            self._samplings.note(time.monotonic() - begun_s)
        return sampled_from_proto(answer)

    async def render(
        self, file: bytes, limits: PdfLimits, *, field: str, request_id: str, by_s: float
    ) -> tuple[Page, ...]:
        """Has the pages of a PDF made.

        Args:
            file: The PDF.
            limits: How large its pages are, and how many there may be.
            field: Its place in the request, for errors.
            request_id: Travels with the call.
            by_s: When the answer must be here.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
        """
        request = rendering_to_proto(
            file, limits, request_id=request_id, bundle_digest=self.bundle_digest
        )

        def ask(stub: Stub, **options: Any) -> Asked[list[vision_pb2.PdfPage]]:
            call = stub.RenderPdf(request, **options)
            return call, partial(_all, call)

        # Pages take their time, and not all PDFs the same: silence alone says little.
        return pages_from_proto(await self._read(ask, math.inf, field, request_id, by_s))

    async def _read(
        self,
        ask: Callable[..., Asked[T]],
        within_s: float,
        field: str,
        request_id: str,
        by_s: float,
    ) -> T:
        """What one of at most two addresses says of a file.

        Args:
            ask: Makes the call, and says how its answer is waited for.
            within_s: How long the first is waited for alone, and half of the time at most.
            field: The file's place in the request, for errors.
            request_id: Travels with the call.
            by_s: When the answer must be here.

        Raises:
            ServiceError: what the vision tier answered, or VISION_UNAVAILABLE.
        """
        self._budget.called()

        async def open_at(avoid: Collection[Endpoint]) -> ReadingAttempt[T]:
            endpoint = await self.ready(avoid=avoid)
            stub = vision_pb2_grpc.VisionServiceStub(self.channels[endpoint])
            options = {"timeout": seconds_left(by_s), "metadata": tracing.metadata(request_id)}
            call, answer = ask(stub, **options)
            failed = partial(self._reading_failed, field)
            return ReadingAttempt(endpoint, call, answer, failed=failed)

        race = Race(
            open_at,
            patience_s=lambda _: min(seconds_left(by_s) / 2, within_s),
            may_retry=self._may_retry,
        )
        async with race.winner() as attempt:
            self._note_won(race, attempt.endpoint)
            assert attempt.answer is not None, "it has begun"
            return attempt.answer

    def _reading_failed(self, field: str, endpoint: Endpoint, error: grpc.RpcError) -> ServiceError:
        self.note_failure(endpoint, error)
        if code_of(error) is grpc.StatusCode.UNIMPLEMENTED and not is_told(error):
            return Unsupported(f"{field} is not read by this vision tier's release", param=field)
        return vision_error_for_client(failure_of(error), field=field)

    def _note_won(self, race: Race[R], endpoint: Endpoint) -> None:
        self.note_success(endpoint)
        if race.left_behind is not None:
            self.note_fault(race.left_behind, Fault.SILENT)

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

    def _check_suspicion(self, image: Encodable) -> None:
        """Refuses an image that ended fronts of the tier, for a while.

        Raises:
            Unavailable: with the time.
        """
        left_s = self._suspects.refused_for_s(image.digest)
        if left_s is not None:
            raise error_for(
                self.router.reason,
                f"the vision tier was lost twice with {image.field}; it is tried in {left_s:.0f} s",
                param=image.field,
                retry_after_s=left_s,
            )

    def _patience_s(self, first: EncodeAttempt, by_s: float) -> float:
        """How long the first attempt is waited for alone; half of the time if nothing is known."""
        half_s = seconds_left(by_s) / 2
        patience_s = self._pace.patience_s(first.ahead)
        return half_s if patience_s is None else min(half_s, patience_s)

    def _may_retry(self, failure: ServiceError | None, image: Encodable | None = None) -> bool:
        """Whether a call that failed so, or is silent where None, may be made once more."""
        if failure is not None and not isinstance(failure, Unavailable):
            return False
        if failure is not None and image is not None and self._suspects.is_suspect(image.digest):
            return False
        if not self._budget.take():
            return False
        self.retries[Fault.SILENT if failure is None else Fault.UNAVAILABLE] += 1
        return True

    def _attempt(
        self, endpoint: Endpoint, image: Encodable, request_id: str, by_s: float
    ) -> EncodeAttempt:
        channel = self.channels[endpoint]
        is_connected = channel.get_state() is grpc.ChannelConnectivity.READY
        call = vision_pb2_grpc.VisionServiceStub(channel).Encode(
            encode_to_proto(image, request_id=request_id, bundle_digest=self.bundle_digest),
            timeout=seconds_left(by_s),
            metadata=tracing.metadata(request_id),
        )
        return EncodeAttempt(
            endpoint,
            call,
            image,
            self._level_count,
            failed=self._failed,
            broken=lambda endpoint: self.note_fault(endpoint, Fault.BROKEN),
            was_connected=is_connected,
        )

    def _failed(self, attempt: EncodeAttempt, error: grpc.RpcError) -> ServiceError:
        """Notes how an attempt ended; returns the error in the client's words."""
        self.note_failure(attempt.endpoint, error)
        if attempt.was_connected and is_cut(error):
            self._suspects.ended(attempt.image.digest)
        return vision_error_for_client(failure_of(error), field=attempt.image.field)

    def _note_encoded(self, attempt: EncodeAttempt, summary: vision_pb2.EncodeSummary) -> None:
        image = attempt.image
        self._suspects.encoded(image.digest)
        self._pace.note(image.grid.patches, summary.encode_ms)
        self._pace.note_call(
            image.grid.patches,
            ahead=attempt.ahead,
            took_s=attempt.took_s,
            encode_ms=summary.encode_ms,
        )

    def _late(self, image: Encodable, spent_s: float, waited_s: float) -> ServiceError:
        """Time is up: for the image, or for a tier that should long have answered.

        Args:
            spent_s: Since the call was made.
            waited_s: For the first attempt alone; less than half of the time only where it is known
                what such calls take.
        """
        if spent_s > 2.5 * waited_s:
            return self.router.unavailable(
                f"the vision tier was silent about {image.field} for {spent_s:.1f} s"
            )
        return _too_slow(image, spent_s)


def _too_slow(image: Encodable, spent_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"{image.field} was not encoded within {spent_s:.1f} s ({image.grid.patches} patches);"
        f" {_HELP}",
        param=image.field,
    )


async def _all(
    call: grpc.aio.UnaryStreamCall[vision_pb2.RenderPdfRequest, vision_pb2.PdfPage],
) -> list[vision_pb2.PdfPage]:
    return [page async for page in call]


async def _report(channel: grpc.aio.Channel) -> Report:
    stub = vision_pb2_grpc.VisionServiceStub(channel)
    request = vision_pb2.GetVisionModelInfoRequest()
    info = await stub.GetModelInfo(request, timeout=LOOK_TIMEOUT_S)
    return Report(bundle_digest=info.bundle_digest, image_limits=limits_from_proto(info))
