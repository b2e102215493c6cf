"""Keys of a file at both doors: names, rates, priorities, and a file that changes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import gateway_pb2
from protos.wire.errors import Reason, ServiceError, from_rpc_error
from tests.unit.gateway.stage import Stage, about_images, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = """
[[keys]]
name = "free"
key = "k-free"

[[keys]]
name = "slow"
key = "k-slow"
requests_per_minute = 2

[[keys]]
name = "short"
key = "k-short"
prompt_tokens_per_minute = 40

[[keys]]
name = "blind"
key = "k-blind"
image_tokens_per_minute = 6

[[keys]]
name = "late"
key = "k-late"
priority = 20

[[keys]]
name = "narrow"
key = "k-narrow"
max_in_flight = 1
"""


def write(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(KEYS)
    return path


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def keyed(bundle: Bundle, key_file: Path) -> AsyncIterator[Stage]:
    async with staged(bundle, key_file=str(key_file), api_key="k-old") as stage:
        yield stage


@pytest.fixture
def stage(keyed: Stage) -> Stage:
    keyed.vision.reset()
    keyed.decoder.reset()
    keyed.will_say("Hi there")
    # Every test begins with full buckets.
    for account in keyed.gateway.keys.accounts:
        account.buckets = {}
        account.limit(account.limits)
    return keyed


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def ask(stage: Stage, key: str, path: str = "/v1/chat/completions", **body: Any) -> Any:
    asked = {"messages": user(), **body}
    return await stage.http.post(path, json=asked, headers=bearer(key))


async def complete(stage: Stage, key: str, **fields: Any) -> None:
    message = gateway_pb2.ChatMessage(
        role=gateway_pb2.ROLE_USER, content=[gateway_pb2.ContentPart(text="Hello?")]
    )
    asked = gateway_pb2.ChatRequest(messages=[message], **fields)
    try:
        async for _ in stage.grpc.Complete(asked, metadata=tuple(bearer(key).items())):
            pass
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def check_refused(response: httpx.Response) -> None:
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1


async def test_requests_above_the_rate_are_refused_in_the_words_of_every_api(stage: Stage) -> None:
    first = await ask(stage, "k-slow")
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"] == "30s"
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert (await ask(stage, "k-slow", stream=True)).status_code == 200
    late = await ask(stage, "k-slow")
    check_refused(late)
    assert late.headers["retry-after"] == "30"
    assert late.headers["x-ratelimit-remaining-requests"] == "0"
    error = late.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    anthropic = await ask(stage, "k-slow", "/v1/messages")
    check_refused(anthropic)
    assert anthropic.json()["error"]["type"] == "rate_limit_error"
    ollama = await ask(stage, "k-slow", "/api/chat")
    check_refused(ollama)
    assert isinstance(ollama.json()["error"], str)
    check_refused(await ask(stage, "k-slow", "/v1/responses"))
    with pytest.raises(ServiceError) as caught:
        await complete(stage, "k-slow")
    assert caught.value.reason is Reason.RATE_LIMIT_EXCEEDED
    assert 0 < (caught.value.retry_after_s or 0) <= 30
    assert (await ask(stage, "k-free")).status_code == 200


async def test_prompt_tokens_are_refused_before_a_decoder_is_asked(stage: Stage) -> None:
    assert (await ask(stage, "k-short", messages=user("a " * 30))).status_code == 200
    used = len(stage.decoder.starts[0].input_ids)
    late = await ask(stage, "k-short", messages=user("a " * 30))
    check_refused(late)
    assert late.headers["x-ratelimit-limit-tokens"] == "40"
    assert abs(int(late.headers["x-ratelimit-remaining-tokens"]) - max(0, 40 - used)) <= 2
    with pytest.raises(ServiceError) as caught:
        await complete(stage, "k-short")
    assert caught.value.reason is Reason.RATE_LIMIT_EXCEEDED
    assert len(stage.decoder.starts) == 1


async def test_image_tokens_are_refused_before_anything_is_encoded(stage: Stage) -> None:
    assert (await ask(stage, "k-blind", messages=about_images((64, 64)))).status_code == 200
    encoded = len(stage.vision.requests)
    late = await ask(stage, "k-blind", messages=about_images((64, 64)))
    check_refused(late)
    assert late.headers["x-ratelimit-limit-image-tokens"] == "6"
    assert late.headers["x-ratelimit-remaining-image-tokens"] == "0"
    assert len(stage.vision.requests) == encoded
    assert (await ask(stage, "k-blind")).status_code == 200  # text costs none


async def test_a_key_gives_its_requests_a_priority(stage: Stage) -> None:
    wanted: list[dict[str, Any]] = [{}, {"priority": 0}, {"priority": 30}]
    for asked in wanted:
        assert (await ask(stage, "k-late", **asked)).status_code == 200
        await complete(stage, "k-late", **asked)
    await ask(stage, "k-free", priority=-3)
    assert [start.priority for start in stage.decoder.starts] == [-20, -20, -20, -20, -30, -30, 3]


async def test_a_key_has_its_own_number_of_requests_at_work(stage: Stage) -> None:
    stage.decoder.pause_after = 1
    running = asyncio.create_task(ask(stage, "k-narrow"))
    await stage.decoder.stalling.wait()
    late = await ask(stage, "k-narrow")
    assert (late.status_code, late.json()["error"]["code"]) == (429, "queue_full")
    stage.decoder.resume.set()
    assert (await running).status_code == 200


async def test_names_are_in_logs_and_metrics_and_keys_are_not(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await ask(stage, "k-blind", messages=about_images((64, 64)))
    await ask(stage, "k-old")
    text = (await stage.http.get("/metrics", headers=bearer("k-free"))).text
    assert 'tandem:gateway_key_image_tokens_total{key="blind"} ' in text
    assert 'tandem:gateway_key_requests_total{key="key-1"} 1.0' in text
    assert 'tandem:gateway_key_in_flight{key="blind"} 0.0' in text
    lines = [line for line in caplog.messages if line.startswith("request id=")]
    assert [line.partition(" key=")[2].split()[0] for line in lines] == ["blind", "key-1"]
    assert "k-blind" not in text + caplog.text


async def test_a_key_that_is_gone_is_refused_and_its_request_runs_on(
    stage: Stage, key_file: Path
) -> None:
    stage.decoder.pause_after = 1
    running = asyncio.create_task(ask(stage, "k-free"))
    await stage.decoder.stalling.wait()
    write(key_file, KEYS.replace("k-free", "k-other"))
    async with asyncio.timeout(30):
        while True:
            answer = await stage.http.get("/v1/models", headers=bearer("k-free"))
            if answer.status_code == 401:
                break
            await asyncio.sleep(0.02)
    stage.decoder.resume.set()
    assert (await running).status_code == 200
    assert (await stage.http.get("/v1/models", headers=bearer("k-other"))).status_code == 200
    write(key_file, KEYS)
    stage.gateway.reload_keys()
    assert (await stage.http.get("/v1/models", headers=bearer("k-free"))).status_code == 200
