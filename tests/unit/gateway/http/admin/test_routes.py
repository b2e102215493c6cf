"""The admin port."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

RIGHT = {"authorization": "Bearer operator"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def held(bundle: Bundle) -> AsyncIterator[Stage]:
    async with staged(bundle, admin_port=0, admin_key="operator", api_key="one,two") as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def admin(held: Stage) -> AsyncIterator[httpx.AsyncClient]:
    held.decoder.reset()
    held.will_say("Hi")
    url = f"http://127.0.0.1:{held.gateway.admin_port}"
    async with httpx.AsyncClient(base_url=url, headers=RIGHT, timeout=20.0) as client:
        yield client


async def ask(stage: Stage) -> httpx.Response:
    headers = {"authorization": "Bearer one"}
    return await stage.http.post("/v1/chat/completions", json={"messages": user()}, headers=headers)


async def test_draining_refuses_what_is_new_and_ends_what_runs(
    held: Stage, admin: httpx.AsyncClient
) -> None:
    held.decoder.pause_after = 1
    running = asyncio.create_task(ask(held))
    await held.decoder.stalling.wait()
    state = (await admin.post("/drain")).json()
    assert (state["draining"], state["requests"]) == (True, 1)
    assert (await held.http.get("/health/ready")).status_code == 503
    assert (await held.http.get("/health/live")).status_code == 200
    late = await ask(held)
    assert (late.status_code, late.json()["error"]["code"]) == (503, "draining")
    assert int(late.headers["retry-after"]) >= 1
    held.decoder.resume.set()
    assert (await running).status_code == 200
    assert (await admin.get("/status")).json()["requests"] == 0
    assert not (await admin.post("/undrain")).json()["draining"]
    assert (await held.http.get("/health/ready")).status_code == 200
    assert (await ask(held)).status_code == 200


async def test_keys_are_listed_by_name_with_their_usage(
    held: Stage, admin: httpx.AsyncClient
) -> None:
    before = (await admin.get("/keys")).json()["keys"][0]["usage"]["requests"]
    await ask(held)
    answer = await admin.get("/keys")
    first, second = answer.json()["keys"]
    assert (first["name"], second["name"]) == ("key-1", "key-2")
    assert first["usage"]["requests"] == before + 1
    assert second["usage"]["requests"] == 0
    assert first["usage"]["completion_tokens"] > 0
    assert '"one"' not in answer.text


async def test_the_addresses_of_the_tiers_are_listed(held: Stage, admin: httpx.AsyncClient) -> None:
    tiers = (await admin.get("/tiers")).json()
    (decoder,) = tiers["decoder"]
    assert (decoder["address"], decoder["state"]) == (held.decoder.address, "serving")
    assert tiers["vision"][0]["address"] == held.vision.address


async def test_the_level_of_the_log_is_changed(admin: httpx.AsyncClient) -> None:
    before = logging.getLogger().level
    try:
        answer = await admin.post("/log-level", json={"level": "DEBUG"})
        assert answer.json()["log_level"] == "DEBUG"
        assert logging.getLogger().level == logging.DEBUG
        wrongs: list[Any] = [{"level": "LOUD"}, {}, [], {"level": 7}]
        for wrong in wrongs:
            assert (await admin.post("/log-level", json=wrong)).status_code == 400
        assert logging.getLogger().level == logging.DEBUG
    finally:
        logging.getLogger().setLevel(before)


async def test_only_the_operator_may_ask(held: Stage, admin: httpx.AsyncClient) -> None:
    for key in ("", "Bearer one", "Bearer operator2"):
        answer = await admin.post("/drain", headers={"authorization": key})
        assert answer.status_code == 401
    page = {"origin": "https://evil.example"}
    assert (await admin.post("/drain", headers=page)).status_code == 400
    assert (await admin.get("/status", headers={"host": "evil.example"})).status_code == 400
    assert (await admin.get("/nowhere")).status_code == 404
    assert (await admin.get("/drain")).status_code == 405
    assert not (await admin.get("/status")).json()["draining"]
    # The doors know none of it.
    headers = {"authorization": "Bearer one"}
    assert (await held.http.post("/drain", headers=headers)).status_code == 404
