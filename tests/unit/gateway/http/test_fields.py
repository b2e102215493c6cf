"""A setting leaves unknown fields out and names them, for clients of other servers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, image_part, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lenient(bundle: Bundle) -> AsyncIterator[Stage]:
    async with staged(bundle, unknown_fields="warn") as stage:
        yield stage


@pytest.fixture
def warning(lenient: Stage) -> Stage:
    lenient.decoder.reset()
    lenient.will_say("Hi there")
    return lenient


PART: dict[str, Any] = image_part() | {"language": "en"}
PART["image_url"] |= {"quality": 3}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_field_is_left_out_and_named(warning: Stage, stream: bool) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, PART], "mood": 1}]
    response = await warning.post(messages=messages, stream=stream, provider={"a": 1}, empty=None)
    assert response.status_code == 200, response.text
    named = response.headers["x-ignored-fields"].split(", ")
    assert sorted(named) == [
        "messages[0].content[1].image_url.quality",
        "messages[0].content[1].language",
        "messages[0].mood",
        "provider",
    ]


async def test_plain_completions_and_counts_do_alike(warning: Stage) -> None:
    for path in ("/v1/completions", "/tokenize"):
        response = await warning.http.post(path, json={"prompt": "a", "x\ny": 1})
        assert response.status_code == 200, response.text
        assert response.headers["x-ignored-fields"] == "x?y"


async def test_without_unknown_fields_nothing_is_named(warning: Stage, stage: Stage) -> None:
    for one in (warning, stage):
        response = await one.post(messages=user())
        assert "x-ignored-fields" not in response.headers


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": "hot", "mood": 1}, "temperature"),
        ({"mood": 1}, "messages"),
        ({"messages": user(), "audio": 1, "echo": True}, "echo"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_known_is_held_or_refused_as_ever(
    warning: Stage, body: dict[str, Any], param: str
) -> None:
    response = await warning.post(**body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
