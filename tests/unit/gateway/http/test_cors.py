"""What browsers send for foreign web pages without asking first."""

import pytest

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/chat/completions"
EVIL = "https://evil.example"


async def status(stage: Stage, kind: str | None, headers: dict[str, str]) -> int:
    """Of a right question, sent with this Content-Type."""
    body = stage.http.build_request("POST", URL, json={"messages": user()}, headers=headers)
    del body.headers["content-type"]
    if kind is not None:
        body.headers["content-type"] = kind
    return (await stage.http.send(body)).status_code


@pytest.mark.parametrize("kind", [None, "text/plain", "text/plain; charset=utf-8", ""])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost:3000"},
    ],
)
async def test_a_foreign_page_cannot_ask_without_being_asked(
    stage: Stage, kind: str | None, headers: dict[str, str]
) -> None:
    assert await status(stage, kind, headers) == 400
    assert not stage.decoder.starts


async def test_everyone_else_may_leave_out_the_type(stage: Stage) -> None:
    own = f"http://127.0.0.1:{stage.gateway.http_port}"
    for headers in (
        {},
        {"origin": own},
        {"origin": own, "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ):
        assert await status(stage, None, headers) == 200
    # This a browser sends after it has asked, and it was told nothing.
    assert await status(stage, "application/json", {"origin": EVIL}) == 200


async def test_listed_origins_may_ask(bundle: Bundle) -> None:
    async with staged(bundle, cors_origins="https://chat.example") as stage:
        stage.will_say("Hi")
        assert await status(stage, None, {"origin": "https://chat.example"}) == 200
        assert await status(stage, None, {"origin": EVIL}) == 400
