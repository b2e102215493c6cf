"""Failures in the words of each API, with the status and headers that clients act on."""

from typing import Any

import pytest

from protos.bundle.manifest import Bundle
from protos.wire.errors import Overloaded, Reason, Unavailable
from tests.unit.gateway.stage import Stage, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = "/v1/messages"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/responses": {"input": "Hello?"},
    "/v1/responses/input_tokens": {"input": "Hello?"},
    MESSAGES: {"max_tokens": 8, "messages": user()},
    "/v1/messages/count_tokens": {"messages": user()},
    "/api/chat": {"messages": user(), "stream": False},
    "/api/generate": {"prompt": "Hello?", "stream": False},
}
ANSWERING = ("/v1/responses", MESSAGES, "/api/chat", "/api/generate")


def told(path: str, body: Any) -> tuple[str | None, str]:
    """Type and message of an error, whose form must be that of the path's API."""
    if path.startswith("/api/"):
        assert set(body) == {"error"}
        return None, body["error"]
    if path.startswith(MESSAGES):
        assert set(body) == {"type", "error"}
        assert body["type"] == "error"
        assert set(body["error"]) == {"type", "message"}
    else:
        assert set(body["error"]) == {"type", "message", "param", "code"}
    return body["error"]["type"], body["error"]["message"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_cannot_be_read_is_told_in_the_apis_words(
    stage: Stage, path: str
) -> None:
    for content, kind, status in (
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"{}", "text/plain", 400),
        (b'{"model": 3}', "application/json", 400),
        (b'{"oddity": 3}', "application/json", 400),
        (b'{"model": "gpt-4", "x": {}, "x": {}}', "application/json", 400),
    ):
        answer = await stage.http.post(path, content=content, headers={"content-type": kind})
        assert answer.status_code == status, content
        assert told(path, answer.json())[0] in (None, "invalid_request_error")


@pytest.mark.parametrize("path", BODIES)
async def test_another_model_is_not_found(stage: Stage, path: str) -> None:
    answer = await stage.http.post(path, json={**BODIES[path], "model": "gpt-4"})
    assert answer.status_code == 404
    assert told(path, answer.json())[0] in (None, "not_found_error")


@pytest.mark.parametrize("path", ["/v1/messages/x", "/v1/responses/x/y", "/api/x", "/api/chat/x"])
async def test_no_such_path_is_told_in_the_apis_words(stage: Stage, path: str) -> None:
    answer = await stage.http.get(path)
    assert answer.status_code == 404
    assert told(path, answer.json()) in [
        (None, "no such path"),
        ("not_found_error", "no such path"),
    ]


@pytest.mark.parametrize("path", BODIES)
async def test_a_wrong_method_is_told_the_right_one(stage: Stage, path: str) -> None:
    answer = await stage.http.request("PUT", path)
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"] or "GET" in answer.headers["allow"]
    told(path, answer.json())


@pytest.mark.parametrize("path", ANSWERING)
@pytest.mark.parametrize("streams", [False, True])
async def test_a_full_server_says_when_to_come_back(stage: Stage, path: str, streams: bool) -> None:
    asked = {**BODIES[path], "stream": streams}
    for failure, status, kind in (
        (Overloaded("full", retry_after_s=7), 429, "rate_limit_error"),
        (Unavailable("gone", reason=Reason.LOADING, retry_after_s=3), 503, None),
    ):
        stage.decoder.failure = failure
        answer = await stage.http.post(path, json=asked)
        assert answer.status_code == status
        assert answer.headers["retry-after"] == str(round(failure.retry_after_s or 0))
        found, message = told(path, answer.json())
        assert message == failure.message
        assert kind is None or found in (None, kind)


async def test_anthropics_types_follow_the_status(stage: Stage) -> None:
    stage.decoder.failure = Unavailable("gone", reason=Reason.LOADING)
    answer = await stage.http.post(MESSAGES, json=BODIES[MESSAGES])
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert answer.headers["request-id"] == answer.headers["x-request-id"]


async def test_a_key_is_wanted_in_either_header_and_a_large_body_refused(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret", max_body_bytes=1000) as stage:
        stage.will_say("Hi")
        for path, body in BODIES.items():
            for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
                answer = await stage.http.post(path, json=body, headers=headers)
                assert answer.status_code == 401
                assert told(path, answer.json())[0] in (None, "authentication_error")
            for headers in ({"x-api-key": "s3cret"}, {"authorization": "Bearer s3cret"}):
                answer = await stage.http.post(path, json=body, headers=headers)
                assert answer.status_code == 200, answer.text
            large = {**body, "model": "x" * 2000}
            answer = await stage.http.post(path, json=large, headers={"x-api-key": "s3cret"})
            assert answer.status_code == 413
            assert told(path, answer.json())[0] in (
                None,
                "invalid_request_error",
                "request_too_large",
            )


@pytest.mark.parametrize("path", ANSWERING)
async def test_a_prompt_that_is_too_long_is_refused(stage: Stage, path: str) -> None:
    text = "word " * 6000
    asked = {**BODIES[path], "input": text, "messages": user(text), "prompt": text}
    known = {name: asked[name] for name in BODIES[path]}
    answer = await stage.http.post(path, json=known)
    assert answer.status_code == 400
    assert "context_length_exceeded" in told(path, answer.json())[1]


async def test_unknown_fields_are_named_where_a_setting_lets_them_pass(bundle: Bundle) -> None:
    part = {"type": "input_text", "text": "Hello?", "part_odd": 1}
    block = {"type": "text", "text": "Hello?", "block_odd": 1}
    turn = {"role": "user", "content": "Hello?", "turn_odd": 1}
    async with staged(bundle, unknown_fields="warn") as stage:
        stage.will_say("Hi")
        for path, body, named in (
            (
                "/v1/responses",
                {"input": [{"role": "user", "content": [part], "item_odd": 1}]},
                "odd, input[0].item_odd, input[0].content[0].part_odd",
            ),
            (
                MESSAGES,
                {"max_tokens": 8, "messages": [{"role": "user", "content": [block]}]},
                "odd, messages[0].content[0].block_odd",
            ),
            ("/api/chat", {"messages": [turn], "stream": False}, "odd, messages[0].turn_odd"),
        ):
            answer = await stage.http.post(path, json={**body, "odd": {"x": 1}})
            assert answer.status_code == 200, answer.text
            assert sorted(answer.headers["x-ignored-fields"].split(", ")) == sorted(
                named.split(", ")
            )
