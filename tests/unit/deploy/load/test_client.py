"""Streams of an endpoint as the client reads them: moments, usage and kinds of failures."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from deploy.load import run as running
from deploy.load.bodies import bodies
from deploy.load.client import LoadClient
from deploy.load.plan import LoadPlan, base_url, drawn_sizes, sizes_of
from deploy.load.run import Outcome
from deploy.terminal.screen import CommandError
from tests.unit.deploy.load.endpoint import DONE, END, Endpoint, event, serving

USAGE = event(usage={"prompt_tokens": 9, "completion_tokens": 4})
NOTES = Console(quiet=True)


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[Endpoint, str]]:
    made = Endpoint()
    async with serving(made) as url:
        yield made, url


async def asked(url: str, **settings: Any) -> Any:
    async with LoadClient(url, **settings) as client:
        return await client.ask(b"{}")


async def test_moments_are_of_pieces_with_text_in_their_order(
    endpoint: tuple[Endpoint, str],
) -> None:
    fake, url = endpoint
    ticks = iter(range(100))
    fake.pieces = [
        event({"role": "assistant", "content": ""}),
        event({"reasoning_content": "hm"}),
        event({"content": "a"}),
        b": a comment\n\n",
        event({"tool_calls": [{"index": 0}]}),
    ]
    fake.tail = [END, USAGE, DONE]
    answer = await asked(url, clock=lambda: float(next(ticks)), api_key="secret")
    assert answer.moments == (0.0, 1.0, 2.0)
    assert answer.ended_s == 3.0
    assert (answer.error, answer.prompt_tokens, answer.completion_tokens) == (None, 9, 4)
    assert fake.headers[0]["authorization"] == "Bearer secret"


async def test_times_are_no_shorter_than_what_the_endpoint_did(
    endpoint: tuple[Endpoint, str],
) -> None:
    fake, url = endpoint
    fake.pause_s = 0.02
    before = asyncio.get_running_loop().time()
    answer = await asked(url, clock=asyncio.get_running_loop().time)
    assert answer.tokens == 3
    # Each lower bound is of the endpoint's own pauses; a busy machine can only add to them.
    assert answer.moments[0] - before >= 0.019
    assert answer.moments[2] - before >= 0.057
    assert answer.ended_s >= answer.moments[2]


@pytest.mark.parametrize(
    ("pieces", "tail", "error"),
    [
        ([event({"content": "a"})], [], "cut off"),
        ([event({"content": "a"})], [event(error={"message": "no"})], "error in stream"),
        ([b"data: {no\n\n"], [DONE], "bad stream"),
        ([b"data: [1]\n\n"], [DONE], "bad stream"),
        ([], [END], None),
    ],
)
async def test_a_stream_that_breaks_says_how(
    endpoint: tuple[Endpoint, str], pieces: list[bytes], tail: list[bytes], error: str | None
) -> None:
    fake, url = endpoint
    fake.pieces, fake.tail = pieces, tail
    assert (await asked(url)).error == error


async def test_refusals_timeouts_and_absence_have_kinds(endpoint: tuple[Endpoint, str]) -> None:
    fake, url = endpoint
    fake.hold = asyncio.Event()
    assert (await asked(url, timeout_s=0.05)).error == "timeout"
    fake.refuse_after, fake.status = 0, 429
    assert (await asked(url)).error == "HTTP 429"
    assert (await asked("http://127.0.0.1:1/v1")).error == "not reachable"


def plan_for(url: str, **fields: Any) -> LoadPlan:
    return LoadPlan(url=url, sizes=sizes_of("32x32"), **fields)


async def ran(plan: LoadPlan) -> Outcome:
    client = LoadClient(plan.url, timeout_s=plan.timeout_s)
    return await running._run(NOTES, plan, client)


async def test_a_load_warms_up_and_counts_every_request_once(
    endpoint: tuple[Endpoint, str],
) -> None:
    fake, url = endpoint
    fake.refuse_after, fake.status = 5, 503  # a warm-up and four measured ones
    outcome = await ran(plan_for(url, requests=6, concurrency=2))
    found = outcome.figures
    assert (found.model, found.answered, found.errors) == ("small", 4, {"HTTP 503": 2})
    assert found.completion_tokens == 12
    assert len(fake.bodies) == 7
    assert fake.most_at_once <= 2
    assert outcome.stopped_by is None


async def test_a_rate_sends_all_although_none_has_been_answered(
    endpoint: tuple[Endpoint, str],
) -> None:
    fake, url = endpoint
    fake.hold = asyncio.Event()
    load = asyncio.create_task(ran(plan_for(url, requests=5, warm_ups=0, rate=1000.0)))
    for _ in range(5):
        await fake.held.acquire()
    fake.hold.set()
    assert (await load).figures.answered == 5


async def test_a_signal_gives_the_figures_so_far(endpoint: tuple[Endpoint, str]) -> None:
    fake, url = endpoint
    fake.hold, fake.hold_after = asyncio.Event(), 4  # of which one warms up
    load = asyncio.create_task(ran(plan_for(url, requests=10, concurrency=1)))
    await fake.held.acquire()
    os.kill(os.getpid(), signal.SIGINT)
    outcome = await load
    assert outcome.stopped_by == signal.SIGINT
    assert (outcome.figures.answered, outcome.figures.unfinished) == (3, 1)
    fake.hold.set()


async def test_a_warm_up_that_fails_ends_the_load_at_once(endpoint: tuple[Endpoint, str]) -> None:
    fake, url = endpoint
    fake.refuse_after, fake.status = 0, 401
    with pytest.raises(CommandError, match="HTTP 401"):
        await ran(plan_for(url))
    with pytest.raises(CommandError, match="not reachable"):
        await ran(plan_for("http://127.0.0.1:1/v1"))


def test_bodies_hold_images_and_videos_nobody_has_seen() -> None:
    plan = LoadPlan(url="", sizes=sizes_of("40x30"), images=2, video_frames=3, requests=2)
    made = [json.loads(body) for body in bodies(plan, "small")]
    assert len(made) == 3
    parts = [body["messages"][0]["content"] for body in made]
    kinds = [part["type"] for part in parts[0]]
    assert kinds == ["image_url", "image_url", "video_url", "text"]
    assert parts[0][2]["video_url"]["url"].count(",") == 3
    assert len({part["image_url"]["url"] for content in parts for part in content[:2]}) == 6
    again = [json.loads(body) for body in bodies(plan, "small")]
    assert again[0]["messages"] != made[0]["messages"]
    assert made[0]["stream_options"] == {"include_usage": True}
    assert "ignore_eos" not in made[0]


def test_sizes_are_drawn_by_their_weights() -> None:
    sizes = sizes_of("640x480:3,1024x768")
    drawn = drawn_sizes(sizes, 4000, seed=0)
    assert drawn.count(sizes[0]) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sizes_of("none") == ()


@pytest.mark.parametrize("text", ["", "640", "640x", "0x10", "640x480:0", "640x480:nan", "1x99999"])
def test_sizes_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--sizes"):
        sizes_of(text)


@pytest.mark.parametrize(
    "given",
    [
        "http://h:1",
        "http://h:1/",
        "http://h:1/v1",
        "http://h:1/v1/",
        "http://h:1/v1/chat/completions",
    ],
)
def test_a_url_may_be_given_with_or_without_its_route(given: str) -> None:
    assert base_url(given) == "http://h:1/v1"


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(CommandError, match="--url"):
        base_url("127.0.0.1:8000")
