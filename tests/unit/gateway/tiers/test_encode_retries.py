"""Which encodings are asked for twice, and which images are not encoded at all."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import grpc
import pytest

from gateway.fleet import words
from gateway.fleet.discovery import Discovery
from gateway.fleet.sources import source_of
from gateway.fleet.standing import Fault, Trust
from gateway.media.images import PlannedImage
from gateway.tiers import pace, vision
from gateway.tiers.vision import VisionClient
from gateway.tiers.watch import Watching
from protos.bundle.manifest import Bundle
from protos.media.formats import ImageHeader
from protos.media.images import Grid, PixelRange
from protos.media.videos import FrameSampling
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire.errors import Reason, ServiceError, Unavailable
from tests.unit.gateway.fakes import Context, FakeVision


class SlowVision(FakeVision):
    """Needs a while for each image."""

    encode_s = 0.0
    cuts = False  # calls, as a server that ends does with those that come too late

    async def Encode(
        self, request: vision_pb2.EncodeRequest, context: Context
    ) -> AsyncIterator[vision_pb2.EncodeChunk]:
        if self.cuts:
            self.requests.append(request)
            await context.abort(grpc.StatusCode.CANCELLED)
        async for chunk in super().Encode(request, context):
            yield chunk

    async def GetModelInfo(
        self, request: vision_pb2.GetVisionModelInfoRequest, context: Context
    ) -> tensor_pb2.ModelInfo:
        if self.hold:
            await asyncio.Event().wait()
        return await super().GetModelInfo(request, context)

    async def SampleVideo(
        self, request: vision_pb2.SampleVideoRequest, context: Context
    ) -> vision_pb2.SampledVideo:
        await self._wait_if_held()
        return await super().SampleVideo(request, context)

    async def _wait_if_held(self) -> None:
        await asyncio.sleep(self.encode_s)
        await super()._wait_if_held()


class Tier:
    """A client and its two addresses; calls go to the first."""

    def __init__(self, client: VisionClient, first: SlowVision, second: SlowVision) -> None:
        self.client, self.first, self.second = client, first, second
        self.endpoint, other = client.router.endpoints
        other.running = 1
        self.rows = 0

    async def encode(self, name: bytes = b"i", within_s: float = 20.0) -> vision_pb2.EncodeSummary:
        self.rows = 0

        async def forward(chunk: tensor_pb2.FeatureChunk) -> None:
            self.rows += chunk.values.shape[0]

        return await self.client.encode(
            planned(name), request_id="r", by_s=time.monotonic() + within_s, forward=forward
        )

    @property
    def calls(self) -> tuple[int, int]:
        return len(self.first.requests), len(self.second.requests)


def planned(name: bytes) -> PlannedImage:
    return PlannedImage(
        data=name,
        field="messages[0].content[0]",
        header=ImageHeader(format="PNG", width=64, height=64),
        areas=PixelRange(1, 4096),
        grid=Grid(1, 4, 4),
        token_count=4,
        digest=name.ljust(32),
    )


def client(bundle: Bundle, *tiers: FakeVision, interval_s: float) -> VisionClient:
    return VisionClient(
        Discovery("vision", [source_of(each.address) for each in tiers]),
        bundle_digest=bundle.digest,
        level_count=1 + bundle.manifest.deepstack_level_count,
        watching=Watching(interval_s=interval_s, discover_interval_s=60.0),
    )


@pytest.fixture
async def tier(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tier]:
    monkeypatch.setattr(pace, "_LEAST_PATIENCE_S", 0.1)
    async with SlowVision(bundle) as first, SlowVision(bundle) as second:
        async with client(bundle, first, second, interval_s=60.0) as made:
            assert isinstance(made, VisionClient)
            yield Tier(made, first, second)


async def test_a_call_is_given_up_when_its_only_address_answers_no_looks(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision, "LOOK_TIMEOUT_S", 0.2)
    async with SlowVision(bundle) as alone, client(bundle, alone, interval_s=0.05) as made:
        assert isinstance(made, VisionClient)
        alone.hold = True
        begun_s = time.monotonic()
        with pytest.raises(Unavailable):
            await made.encode(
                planned(b"i"), request_id="r", by_s=begun_s + 60, forward=forward_nothing
            )
        assert time.monotonic() - begun_s < 20


async def forward_nothing(chunk: tensor_pb2.FeatureChunk) -> None:
    raise AssertionError("there is nothing to pass on")


async def refused(asking: Callable[[], object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await asking()  # type: ignore[misc]
    return caught.value


async def test_a_silent_encoder_costs_its_patience_and_is_set_aside(tier: Tier) -> None:
    await tier.encode()
    tier.first.hold = True
    await tier.encode()
    assert tier.calls == (2, 1)
    assert tier.rows == 4 * tier.client._level_count
    assert tier.client.retries == {Fault.SILENT: 1}
    assert tier.endpoint.standing.trust is Trust.EJECTED
    assert (tier.endpoint.calls, tier.endpoint.patches) == (0, 0)
    await tier.first.cancelled.wait()


async def test_an_image_that_came_too_late_to_an_encoder_that_ends_goes_to_another(
    tier: Tier,
) -> None:
    tier.first.cuts = True
    await tier.encode()
    assert tier.calls == (1, 1)
    assert tier.client.retries == {Fault.UNAVAILABLE: 1}


async def test_who_is_only_slow_may_still_win_and_nobody_is_set_aside(tier: Tier) -> None:
    await tier.encode()
    tier.first.encode_s, tier.second.encode_s = 0.5, 20.0
    await tier.encode()
    assert tier.calls == (2, 1)
    assert tier.endpoint.standing.trust is Trust.TRUSTED


async def test_nothing_is_asked_twice_without_budget_and_the_tier_is_to_blame(tier: Tier) -> None:
    await tier.encode()
    while tier.client._budget.take():
        pass
    tier.first.hold = True
    failure = await refused(lambda: tier.encode(within_s=1.5))
    assert (failure.reason, failure.retry_after_s) == (Reason.VISION_UNAVAILABLE, 1.0)
    assert tier.calls == (2, 0)


async def test_while_nothing_is_known_half_of_the_time_is_waited(tier: Tier) -> None:
    tier.first.hold = True
    begun_s = time.monotonic()
    await tier.encode(within_s=2.0)
    assert time.monotonic() - begun_s > 0.9
    assert tier.calls == (1, 1)


async def test_an_image_may_wait_for_encoders_that_come_back(tier: Tier) -> None:
    """Their front is there all the time, and answers at once that it has none."""
    tier.client._wait_s = 20.0
    gone: list[ServiceError] = [
        Unavailable("no encoder", reason=Reason.VISION_UNAVAILABLE) for _ in range(8)
    ]
    tier.first.failures, tier.second.failures = gone[:4], gone[4:]
    await tier.encode()
    assert sum(tier.calls) >= 5


async def test_features_that_were_passed_on_are_never_asked_for_again(tier: Tier) -> None:
    tier.first.failures_midway = [Unavailable("gone", reason=Reason.VISION_UNAVAILABLE)]
    assert (await refused(tier.encode)).reason is Reason.VISION_UNAVAILABLE
    assert tier.calls == (1, 0)


async def test_an_encoding_is_asked_of_another_front_when_the_first_has_no_encoder(
    tier: Tier,
) -> None:
    tier.first.failures = [Unavailable("no encoder", reason=Reason.VISION_UNAVAILABLE)]
    await tier.encode()
    assert tier.calls == (1, 1)
    assert tier.client.retries == {Fault.UNAVAILABLE: 1}


async def test_an_image_that_ends_two_fronts_is_refused(tier: Tier) -> None:
    await tier.encode(b"innocent")
    for each in (tier.first, tier.second):
        each.hold = True
    asking = asyncio.create_task(refused(lambda: tier.encode(b"bad")))
    for each in (tier.first, tier.second):
        await each.holding.wait()
        await each.die()
    assert isinstance(await asking, Unavailable)
    async with FakeVision(tier.first.bundle, port=tier.first.port) as successor:
        failure = await refused(lambda: tier.encode(b"bad"))
        assert "lost twice" in failure.message
        assert failure.retry_after_s is not None and failure.retry_after_s <= 10
        for name in (b"good", b"innocent"):
            await tier.encode(name)
        assert len(successor.requests) == 2


async def test_broken_answers_set_an_address_aside(tier: Tier) -> None:
    tier.first.rows_short = 1
    for _ in range(2):
        assert (await refused(tier.encode)).reason is Reason.VISION_UNAVAILABLE
    assert tier.client.ejector.ejections == {Fault.BROKEN: 1}
    await tier.encode()
    assert tier.calls == (2, 1)


async def test_a_front_that_is_silent_about_a_video_is_left_for_another(
    tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "LEAST_S", 0.2)
    tier.first.hold = True
    sampling = FrameSampling(max_frames=4)
    seen = await tier.client.sample(
        b"video", sampling, field="f", request_id="r", by_s=time.monotonic() + 20
    )
    assert len(seen.indices) == 4
    assert tier.client.retries == {Fault.SILENT: 1}
    assert tier.endpoint.standing.trust is Trust.EJECTED
    assert tier.endpoint.calls == 0
