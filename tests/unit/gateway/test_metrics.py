"""What answers leave in the gateway's metrics."""

from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway import metrics as module
from gateway.fleet.standing import Fault, Trust
from gateway.metrics import GatewayMetrics, TokenClock
from protos.bundle.manifest import Bundle
from protos.wire.errors import Reason, Unavailable
from tests.support.prompts import png
from tests.unit.gateway.stage import Stage, data_url, staged


@pytest.fixture
async def stage(bundle: Bundle) -> AsyncIterator[Stage]:
    async with staged(bundle, api_key="secret", metrics_port=0) as stage:
        stage.will_say("Hi there, you")
        stage.http.headers["authorization"] = "Bearer secret"
        yield stage


async def values(stage: Stage) -> dict[str, float]:
    """Every sample by its name and the labels that are not the model's name."""
    text = (await stage.http.get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: v for name, v in sample.labels.items() if name != "model_name"}
            found[sample.name + "".join(f" {v}" for v in labels.values())] = sample.value
    return found


def user(text: str = "Hello") -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def about_image() -> list[dict[str, Any]]:
    image = {"type": "image_url", "image_url": {"url": data_url(png(40, 24))}}
    return [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]


async def test_an_answer_counts_under_the_names_of_vllm(stage: Stage) -> None:
    usage = (await stage.post(messages=user())).json()["usage"]
    seen = await values(stage)
    assert seen["vllm:request_success_total stop"] == 1
    assert seen["vllm:prompt_tokens_total"] == usage["prompt_tokens"]
    assert seen["vllm:generation_tokens_total"] == usage["completion_tokens"]
    assert seen["vllm:prefix_cache_queries_total"] == usage["prompt_tokens"]
    once = ("time_to_first_token", "e2e_request_latency", "request_prefill_time")
    assert all(seen[f"vllm:{name}_seconds_count"] == 1 for name in once)
    assert seen["vllm:request_queue_time_seconds_count"] == 1
    # Every token but the first has one before it.
    most = usage["completion_tokens"] - 1
    assert 0 < seen["vllm:inter_token_latency_seconds_count"] <= most


async def test_times_of_images_count_where_one_was_encoded(stage: Stage) -> None:
    await stage.post(messages=user())
    assert (await values(stage))["tandem:gateway_encode_seconds_count"] == 0
    await stage.post(messages=about_image())
    stage.decoder.cached_spans = frozenset({0})
    await stage.post(messages=about_image())
    seen = await values(stage)
    assert seen["tandem:gateway_encode_seconds_count"] == 1
    assert seen["tandem:gateway_images_total"] == 2
    assert seen["tandem:gateway_images_needed_total"] == 1


async def test_refusals_count_by_reason_and_not_as_answers(stage: Stage) -> None:
    await stage.post(messages=user(), top_p=7)
    stage.decoder.failure = Unavailable("gone", reason=Reason.DECODER_UNAVAILABLE)
    await stage.post(messages=user())
    seen = await values(stage)
    assert seen["tandem:gateway_request_failures_total INVALID_PARAMETER"] == 1
    assert seen["tandem:gateway_request_failures_total DECODER_UNAVAILABLE"] == 1
    assert seen["tandem:gateway_request_seconds_count"] == 2
    assert not any(name.startswith("vllm:request_success_total ") for name in seen)


async def test_the_tiers_are_told_as_the_last_look_found_them(stage: Stage) -> None:
    seen = await values(stage)
    assert seen["tandem:gateway_tier_addresses serving decoder"] == 1
    assert seen["tandem:gateway_tier_addresses unreachable vision"] == 0
    endpoint = stage.gateway._decoder.router.endpoints[0]
    endpoint.running, endpoint.waiting, endpoint.kv_usage = 3, 2, 0.25
    text, _ = stage.gateway._metrics.exposition("")
    assert b'vllm:num_requests_running{model_name="test"} 3.0' in text
    assert b'vllm:num_requests_waiting{model_name="test"} 2.0' in text
    assert b'vllm:kv_cache_usage_perc{model_name="test"} 0.25' in text


async def test_addresses_that_are_set_aside_count(stage: Stage) -> None:
    decoder = stage.gateway._decoder
    standing = decoder.router.endpoints[0].standing
    standing.trust, standing.ejected_until_s = Trust.EJECTED, float("inf")
    decoder.ejector.ejections[Fault.SLOW] += 1
    stage.gateway._vision.retries[Fault.SILENT] += 1
    seen = await values(stage)
    assert seen["tandem:gateway_tier_addresses ejected decoder"] == 1
    assert seen["tandem:gateway_tier_addresses serving decoder"] == 0
    assert seen["tandem:gateway_ejections_total slow decoder"] == 1
    assert seen["tandem:gateway_retries_total silent vision"] == 1
    assert seen["tandem:gateway_encode_retries_total"] == 1


async def test_the_door_asks_for_the_key_and_the_port_does_not(stage: Stage) -> None:
    del stage.http.headers["authorization"]
    assert (await stage.http.get("/metrics")).status_code == 401
    port = stage.gateway.metrics_port
    answer = await stage.http.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.status_code == 200
    assert "vllm:num_requests_running" in answer.text


async def test_an_image_asked_for_again_counts(stage: Stage) -> None:
    stage.vision.failures = [Unavailable("gone", reason=Reason.VISION_UNAVAILABLE)]
    await stage.post(messages=about_image())
    assert (await values(stage))["tandem:gateway_encode_retries_total"] == 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    times: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: times.pop(0)))
    yield times


def test_tokens_that_come_together_share_their_time(clock: list[float]) -> None:
    metrics = GatewayMetrics("test")
    tokens = TokenClock(metrics)
    clock.extend([1.0, 1.5, 2.5, 2.5, 2.51])
    for count in (4, 1, 2, 0, 1):
        tokens.came(count)
    name = "vllm:inter_token_latency_seconds"

    def sample(suffix: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name + suffix, {"model_name": "test", **labels})

    assert sample("_count") == 4
    assert sample("_sum") == pytest.approx(1.51)
    # As Prometheus reads it: so many at most as long.
    assert [sample("_bucket", le=le) for le in ("0.01", "0.4", "0.5", "+Inf")] == [1, 1, 4, 4]
