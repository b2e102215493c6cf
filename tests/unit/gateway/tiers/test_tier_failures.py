"""What clients see when a tier fails, and what the tiers see when a client goes."""

import asyncio
import json

import httpx
import openai
import pytest

from protos.bundle.manifest import Bundle
from protos.wire.errors import InternalError, Reason, ServiceError, Unavailable
from tests.unit.gateway.fakes import FakeDecoder, FakeVision
from tests.unit.gateway.stage import Stage, about_images, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def health_becomes(stage: Stage, status: str) -> dict[str, object]:
    """Polls GET /health until it says `status`."""
    async with asyncio.timeout(30):
        while True:
            response = await stage.http.get("/health")
            body: dict[str, object] = response.json()
            if body["status"] == status:
                assert response.status_code == (200 if status in ("ok", "degraded") else 503)
                return body
            await asyncio.sleep(0.02)


async def answered(stage: Stage) -> None:
    """Asks until the gateway has room."""
    async with asyncio.timeout(30):
        while True:
            response = await stage.post(messages=user())
            if response.status_code == 200:
                return
            assert response.status_code == 429


async def test_an_encoding_is_retried_once_when_the_vision_tier_was_unavailable(
    stage: Stage,
) -> None:
    stage.vision.failures = [Unavailable("draining", reason=Reason.DRAINING)]
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 200, response.text
    assert len(stage.vision.requests) == 2


async def test_an_encoding_is_retried_only_once(stage: Stage) -> None:
    stage.vision.failures = [Unavailable("loading") for _ in range(3)]
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert len(stage.vision.requests) == 2


async def test_other_failures_of_an_encoding_are_not_retried(stage: Stage) -> None:
    stage.vision.failures = [InternalError("internal error")]
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 500
    assert len(stage.vision.requests) == 1


def gone(times: int) -> list[ServiceError]:
    return [Unavailable("gone", reason=Reason.VISION_UNAVAILABLE) for _ in range(times)]


async def test_features_that_broke_off_are_sent_anew_with_another_call(stage: Stage) -> None:
    stage.will_say("Hi there")
    stage.vision.failures_midway = gone(1)
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 200, response.text
    first, second = stage.decoder.starts
    assert first.request_id != second.request_id
    assert first.input_ids == second.input_ids
    kept = [one for identity, one in stage.decoder.features if identity == second.request_id]
    levels = 1 + stage.bundle.manifest.deepstack_level_count
    assert sum(one.chunk.values.shape[0] for one in kept) == levels * second.visual_spans[0].length
    assert len({one.chunk.values.data[:4] for one in kept}) == 1  # all of one encoding
    await stage.decoder.cancelled.wait()


async def test_features_that_keep_breaking_off_are_an_error(stage: Stage) -> None:
    stage.vision.failures_midway = gone(9)
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "vision_unavailable"
    assert len(stage.vision.requests) == 4
    await stage.decoder.cancelled.wait()


async def test_an_incomplete_encoding_never_becomes_an_answer(stage: Stage) -> None:
    stage.vision.rows_short = 1
    response = await stage.post(messages=about_images((64, 64)))
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "vision_unavailable"
    await stage.decoder.cancelled.wait()


async def test_the_first_failing_image_cancels_the_others_and_the_decoder(stage: Stage) -> None:
    stage.vision.hold = True
    stage.vision.failures = [InternalError("internal error")]
    response = await stage.post(messages=about_images((64, 64), (96, 64)))
    assert response.status_code == 500
    await stage.decoder.cancelled.wait()


async def test_a_decoder_that_fails_midway_ends_a_stream_with_an_error(stage: Stage) -> None:
    stage.will_say("one two three four")
    stage.decoder.failure_after = (2, InternalError("internal error"))
    response = await stage.post(messages=user(), stream=True)
    assert response.status_code == 200
    events = [event for event in response.text.split("\n\n") if event]
    kind, data = events[-1].split("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "[DONE]" not in response.text
    assert '"finish_reason":"stop"' not in response.text


async def test_the_openai_client_raises_on_a_stream_that_fails(stage: Stage) -> None:
    stage.will_say("one two three four")
    stage.decoder.failure_after = (2, Unavailable("gone", reason=Reason.DECODER_UNAVAILABLE))
    stream = await stage.openai.chat.completions.create(model="test", messages=user(), stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass


async def test_a_stream_without_completion_is_an_error(stage: Stage) -> None:
    stage.decoder.ends_without_completion = True
    response = await stage.post(messages=user())
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "data_loss"


async def test_a_client_that_leaves_before_the_first_token_cancels_everything(
    stage: Stage,
) -> None:
    stage.vision.hold = True
    asking = asyncio.create_task(stage.post(messages=about_images((64, 64))))
    await stage.vision.holding.wait()
    asking.cancel()
    async with asyncio.timeout(30):
        await stage.vision.cancelled.wait()
        await stage.decoder.cancelled.wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_midway_cancels_the_decoder(stage: Stage, stream: bool) -> None:
    stage.will_say("one two three four")
    stage.decoder.stall_after = 2
    asking = asyncio.create_task(stage.post(messages=user(), stream=stream))
    await stage.decoder.stalling.wait()
    asking.cancel()
    async with asyncio.timeout(30):
        await stage.decoder.cancelled.wait()


async def test_a_silent_decoder_ends_a_stream_with_a_timeout(bundle: Bundle) -> None:
    async with staged(bundle, stream_idle_s=0.2) as stage:
        stage.will_say("one two three four")
        stage.decoder.stall_after = 2
        response = await stage.post(messages=user(), stream=True)
        assert '"code":"deadline_exceeded"' in response.text
        await stage.decoder.cancelled.wait()


async def test_a_request_past_its_deadline_gets_504(bundle: Bundle) -> None:
    async with staged(bundle, request_deadline_s=0.3) as stage:
        stage.will_say("one two")
        stage.decoder.stall_after = 0
        response = await stage.post(messages=user())
        assert response.status_code == 504
        streamed = await stage.post(messages=user(), stream=True)
        assert streamed.status_code == 504


async def test_text_is_answered_while_the_vision_tier_is_dead(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        stage.will_say("Hi")
        await stage.vision.die()
        async with asyncio.timeout(30):
            body = await health_becomes(stage, "degraded")
            while body["tiers"] == {"decoder": "serving", "vision": "not_serving"}:  # dying
                body = await health_becomes(stage, "degraded")
        assert body["tiers"] == {"decoder": "serving", "vision": "unreachable"}
        assert (await stage.post(messages=user())).status_code == 200
        for stream in (False, True):
            response = await stage.post(messages=about_images((64, 64)), stream=stream)
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.json()["error"]["code"] == "vision_unavailable"


async def test_a_vision_tier_that_comes_back_is_used_again(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        stage.will_say("Hi")
        await stage.vision.die()
        await health_becomes(stage, "degraded")
        async with FakeVision(bundle, port=stage.vision.port):
            await health_becomes(stage, "ok")
            assert (await stage.post(messages=about_images((64, 64)))).status_code == 200


async def test_a_dead_decoder_gives_503_and_health_says_so(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        await stage.decoder.die()
        await health_becomes(stage, "unavailable")
        response = await stage.post(messages=user())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "decoder_unavailable"
        assert stage.decoder.address not in response.text


async def test_a_decoder_that_dies_midway_ends_the_stream_with_an_error(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        stage.will_say("one two three four")
        stage.decoder.stall_after = 2
        request = {"messages": user(), "stream": True}
        url = "/v1/chat/completions"
        async with stage.http.stream("POST", url, json=request) as response:
            await stage.decoder.stalling.wait()
            await stage.decoder.die()
            text = "".join([piece async for piece in response.aiter_text()])
        assert "event: error" in text
        assert '"code":"decoder_unavailable"' in text
        assert "[DONE]" not in text


async def test_the_next_decoder_is_used_when_one_is_dead(bundle: Bundle) -> None:
    async with FakeDecoder(bundle) as second:
        async with staged(bundle) as first:
            await first.decoder.die()
            addresses = f"{first.decoder.address},{second.address}"
            async with staged(bundle, decoder=addresses) as stage:
                second.tokens = stage.tokenizer.encode_text("Hi")
                for _ in range(4):
                    assert (await stage.post(messages=user())).status_code == 200
        assert len(second.starts) == 4


async def test_a_tier_with_another_bundle_is_refused(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        stage.decoder.digest = "0" * 64
        await health_becomes(stage, "unavailable")
        response = await stage.post(messages=user())
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "model_mismatch"


async def test_a_vision_tier_with_another_bundle_is_refused_for_images_only(
    bundle: Bundle,
) -> None:
    async with staged(bundle) as stage:
        stage.will_say("Hi")
        stage.vision.digest = "0" * 64
        await health_becomes(stage, "degraded")
        response = await stage.post(messages=about_images((64, 64)))
        assert response.json()["error"]["code"] == "model_mismatch"
        assert (await stage.post(messages=user())).status_code == 200


async def test_more_requests_than_fit_are_refused_at_once(bundle: Bundle) -> None:
    async with staged(bundle, max_in_flight=1) as stage:
        stage.will_say("one two")
        stage.decoder.stall_after = 1
        first = asyncio.create_task(stage.post(messages=user()))
        await stage.decoder.stalling.wait()
        response = await stage.post(messages=user())
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        first.cancel()
        await stage.decoder.cancelled.wait()
        stage.decoder.stall_after = None
        await answered(stage)


async def test_leaving_waits_for_running_answers(bundle: Bundle) -> None:
    answering: asyncio.Task[httpx.Response] | None = None
    async with httpx.AsyncClient(timeout=20.0) as client:
        async with staged(bundle) as stage:
            stage.will_say("one two")
            url = f"http://127.0.0.1:{stage.gateway.http_port}/v1/chat/completions"
            stage.decoder.pause_after = 1
            answering = asyncio.create_task(client.post(url, json={"messages": user()}))
            await stage.decoder.stalling.wait()
            asyncio.get_running_loop().call_later(0.2, stage.decoder.resume.set)
        assert (await answering).status_code == 200


async def probes(stage: Stage) -> tuple[int, int, int]:
    """Statuses of the report, readiness and life."""
    paths = ("/health", "/health/ready", "/health/live")
    first, second, third = [(await stage.http.get(path)).status_code for path in paths]
    return first, second, third


async def test_it_is_not_ready_before_the_vision_tier_was_there_once(bundle: Bundle) -> None:
    async with staged(bundle, vision="127.0.0.1:9") as stage:
        report = await health_becomes(stage, "degraded")
        assert report["ready"] is False
        assert await probes(stage) == (200, 503, 200)
        assert (await stage.post(messages=user())).status_code == 200


async def test_it_stays_ready_for_text_when_the_vision_tier_goes(bundle: Bundle) -> None:
    async with staged(bundle) as stage:
        assert (await health_becomes(stage, "ok"))["ready"] is True
        await stage.vision.__aexit__()
        assert (await health_becomes(stage, "degraded"))["ready"] is True
        assert await probes(stage) == (200, 200, 200)


async def test_it_lives_but_is_not_ready_without_a_decoder(bundle: Bundle) -> None:
    async with staged(bundle, decoder="127.0.0.1:9") as stage:
        assert (await health_becomes(stage, "unavailable"))["ready"] is False
        assert await probes(stage) == (503, 503, 200)
