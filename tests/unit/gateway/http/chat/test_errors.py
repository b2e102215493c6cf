"""Bad requests: each gets its status, type, code and param, and the next good one works."""

import json
from typing import Any

import openai
import pytest

from protos.wire.errors import (
    ERROR_TABLE,
    AlreadyExists,
    InvalidRequest,
    Overloaded,
    PromptTooLong,
    Reason,
)
from tests.unit.gateway.stage import Stage, data_url, image_part, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

PART = "messages[0].content[0]"


def one_part(part: Any) -> list[Any]:
    return [{"role": "user", "content": [part]}]


def image(url: Any) -> list[Any]:
    return one_part({"type": "image_url", "image_url": url})


# Each row: what is sent beside a good conversation, the reason, and the param.
BAD: list[tuple[dict[str, Any], Reason, str | None]] = [
    ({"messages": []}, Reason.INVALID_PARAMETER, "messages"),
    ({"messages": None}, Reason.INVALID_PARAMETER, "messages"),
    ({"messages": "hi"}, Reason.INVALID_PARAMETER, "messages"),
    ({"messages": user("  \n")}, Reason.INVALID_PARAMETER, "messages"),
    ({"messages": [{"content": "hi"}]}, Reason.INVALID_PARAMETER, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, Reason.INVALID_PARAMETER, "messages[0].content"),
    (
        {"messages": [{"role": "robot", "content": "hi"}]},
        Reason.INVALID_PARAMETER,
        "messages[0].role",
    ),
    (
        {"messages": [{"role": "user", "content": 5}]},
        Reason.INVALID_PARAMETER,
        "messages[0].content",
    ),
    ({"messages": one_part(None)}, Reason.INVALID_PARAMETER, PART),
    ({"messages": one_part({})}, Reason.INVALID_PARAMETER, PART),
    ({"messages": one_part({"type": "text"})}, Reason.INVALID_PARAMETER, f"{PART}.text"),
    ({"messages": one_part({"type": "input_audio"})}, Reason.UNSUPPORTED_MEDIA, PART),
    ({"messages": one_part({"type": "video_url"})}, Reason.INVALID_PARAMETER, PART),
    ({"messages": image(None)}, Reason.INVALID_PARAMETER, PART),
    ({"messages": image({})}, Reason.INVALID_PARAMETER, PART),
    ({"messages": image(7)}, Reason.INVALID_PARAMETER, PART),
    ({"messages": image({"url": "file:///etc/passwd"})}, Reason.URL_NOT_ALLOWED, PART),
    ({"messages": image("http://127.0.0.1/x.png")}, Reason.URL_NOT_ALLOWED, PART),
    ({"messages": image("data:image/png;base64,AA%%")}, Reason.INVALID_IMAGE, PART),
    ({"messages": image(data_url(b"II*\0 a TIFF"))}, Reason.UNSUPPORTED_MEDIA, PART),
    ({"messages": image(data_url(b"\x89PNG\r\n\x1a\n cut"))}, Reason.INVALID_IMAGE, PART),
    (
        {"messages": image({"url": data_url(b""), "detail": "huge"})},
        Reason.INVALID_PARAMETER,
        f"{PART}.image_url.detail",
    ),
    *(
        ({"messages": one_part(image_part() | {name: value})}, Reason.INVALID_PARAMETER, at)
        for name, at in (
            ("min_pixels", f"{PART}.min_pixels"),
            ("max_pixels", f"{PART}.max_pixels"),
        )
        for value in (0, -5, 1 << 31, 1.5, True, "1")
    ),
    (
        {"messages": one_part(image_part() | {"min_pixels": 9, "max_pixels": 8})},
        Reason.INVALID_PARAMETER,
        f"{PART}.min_pixels",
    ),
    ({"messages": one_part(image_part(1, 300))}, Reason.INVALID_IMAGE, PART),
    (
        {"messages": [{"role": "user", "content": [image_part()] * 17}]},
        Reason.IMAGE_TOO_LARGE,
        "messages",
    ),
    ({"messages": user("a b " * 4000)}, Reason.CONTEXT_LENGTH_EXCEEDED, "messages"),
    ({"model": "other"}, Reason.MODEL_NOT_FOUND, "model"),
    ({"model": "../../x" * 10000}, Reason.MODEL_NOT_FOUND, "model"),
    ({"temperature": -1}, Reason.INVALID_PARAMETER, "temperature"),
    ({"temperature": "hot"}, Reason.INVALID_PARAMETER, "temperature"),
    ({"top_p": 2}, Reason.INVALID_PARAMETER, "top_p"),
    ({"top_p": -0.1}, Reason.INVALID_PARAMETER, "top_p"),
    ({"top_k": -1}, Reason.INVALID_PARAMETER, "top_k"),
    ({"top_k": 2**40}, Reason.INVALID_PARAMETER, "top_k"),
    ({"temperature": 1e300}, Reason.INVALID_PARAMETER, "temperature"),
    ({"logit_bias": {"9999999999": 1}}, Reason.INVALID_PARAMETER, "logit_bias"),
    ({"min_p": 1.5}, Reason.INVALID_PARAMETER, "min_p"),
    ({"seed": 2**63}, Reason.INVALID_PARAMETER, "seed"),
    ({"presence_penalty": 3}, Reason.INVALID_PARAMETER, "presence_penalty"),
    ({"frequency_penalty": -3}, Reason.INVALID_PARAMETER, "frequency_penalty"),
    ({"repetition_penalty": 0}, Reason.INVALID_PARAMETER, "repetition_penalty"),
    ({"max_tokens": 0}, Reason.INVALID_PARAMETER, "max_tokens"),
    ({"max_tokens": -1}, Reason.INVALID_PARAMETER, "max_tokens"),
    ({"max_tokens": 2**63}, Reason.INVALID_PARAMETER, "max_tokens"),
    ({"max_completion_tokens": 0}, Reason.INVALID_PARAMETER, "max_completion_tokens"),
    ({"max_tokens": 4096}, Reason.CONTEXT_LENGTH_EXCEEDED, "max_tokens"),
    ({"n": 0}, Reason.INVALID_PARAMETER, "n"),
    ({"n": 10**9}, Reason.INVALID_PARAMETER, "n"),
    ({"logprobs": 10**6}, Reason.INVALID_PARAMETER, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, Reason.INVALID_PARAMETER, "top_logprobs"),
    ({"top_logprobs": 2}, Reason.INVALID_PARAMETER, "top_logprobs"),
    ({"best_of": 2}, Reason.INVALID_PARAMETER, "best_of"),
    ({"stop": ["x"] * 17}, Reason.INVALID_PARAMETER, "stop"),
    ({"stop": ""}, Reason.INVALID_PARAMETER, "stop"),
    ({"stop": "x" * 257}, Reason.INVALID_PARAMETER, "stop"),
    ({"stop": [5]}, Reason.INVALID_PARAMETER, "stop[0]"),
    ({"logit_bias": {"x": 1}}, Reason.INVALID_PARAMETER, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, Reason.INVALID_PARAMETER, "logit_bias"),
    ({"logit_bias": {"1": 101}}, Reason.INVALID_PARAMETER, "logit_bias"),
    (
        {"logit_bias": {str(at): 1 for at in range(301)}},
        Reason.INVALID_PARAMETER,
        "logit_bias",
    ),
    ({"stop_token_ids": [-1]}, Reason.INVALID_PARAMETER, "stop_token_ids"),
    ({"stream_options": {"include_usage": True}}, Reason.INVALID_PARAMETER, "stream_options"),
    ({"response_format": {"type": "xml"}}, Reason.INVALID_PARAMETER, "response_format.type"),
    ({"cache_salt": ""}, Reason.INVALID_PARAMETER, "cache_salt"),
    ({"cache_salt": "x" * 257}, Reason.INVALID_PARAMETER, "cache_salt"),
    ({"tools": [{}]}, Reason.INVALID_PARAMETER, "tools[0]"),
    (
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        Reason.INVALID_PARAMETER,
        "tools[0].function.name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "a"}}] * 1000},
        Reason.INVALID_PARAMETER,
        "tools",
    ),
    ({"min_tokens": -1}, Reason.INVALID_PARAMETER, "min_tokens"),
    ({"min_tokens": 5, "max_tokens": 4}, Reason.INVALID_PARAMETER, "min_tokens"),
    ({"skip_special_tokens": False}, Reason.NOT_SUPPORTED, "skip_special_tokens"),
    ({"messages": one_part({"type": "refusal", "refusal": "no"})}, Reason.UNSUPPORTED_MEDIA, PART),
    (
        {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": 1}]}]},
        Reason.INVALID_PARAMETER,
        f"{PART}.refusal",
    ),
    ({"tool_choice": "required"}, Reason.INVALID_PARAMETER, "tool_choice"),
    ({"tool_choice": "any"}, Reason.INVALID_PARAMETER, "tool_choice"),
    ({"modalities": ["audio"]}, Reason.NOT_SUPPORTED, "modalities"),
    ({"chat_template": "x"}, Reason.INVALID_PARAMETER, "chat_template"),
    ({"chat_template_kwargs": {"x": 1}}, Reason.INVALID_PARAMETER, "chat_template_kwargs"),
    (
        {"chat_template_kwargs": {"messages": "x"}},
        Reason.INVALID_PARAMETER,
        "chat_template_kwargs",
    ),
    ({"chat_template_kwargs": {"x": []}}, Reason.INVALID_PARAMETER, "chat_template_kwargs"),
    (
        {"chat_template_kwargs": {"enable_thinking": 1}},
        Reason.INVALID_PARAMETER,
        "chat_template_kwargs.enable_thinking",
    ),
    ({"mm_processor_kwargs": {}}, Reason.INVALID_PARAMETER, "mm_processor_kwargs"),
    ({"media_io_kwargs": {}}, Reason.INVALID_PARAMETER, "media_io_kwargs"),
]


@pytest.mark.parametrize(("body", "reason", "param"), BAD, ids=lambda value: str(value)[:40])
async def test_bad_requests_are_refused_by_name(
    stage: Stage, body: dict[str, Any], reason: Reason, param: str | None
) -> None:
    response = await stage.post(**{"messages": user(), **body})
    kind = ERROR_TABLE[reason]
    assert response.status_code == kind.http_status, response.text
    error = response.json()["error"]
    assert (error["type"], error["code"], error["param"]) == (kind.type, kind.openai_code, param)
    assert len(error["message"]) < 500
    assert response.headers["x-request-id"]
    assert stage.decoder.starts == []
    assert stage.vision.requests == []


@pytest.mark.parametrize("body", [{"messages": []}, {"top_p": 2}, {"model": "other"}])
async def test_bad_requests_for_a_stream_get_a_status_too(
    stage: Stage, body: dict[str, Any]
) -> None:
    response = await stage.post(**{"messages": user(), "stream": True, **body})
    assert response.status_code in (400, 404)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("field", ["chat_template", "mm_processor_kwargs"])
async def test_fields_that_change_the_server_are_not_allowed(stage: Stage, field: str) -> None:
    response = await stage.post(messages=user(), **{field: "x"})
    assert "not allowed" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b'{"messages": [', b"[]", b'"x"', b'{"temperature": NaN}', b"\xff\xfe"],
)
async def test_a_body_that_is_no_json_object_is_refused(stage: Stage, body: bytes) -> None:
    response = await stage.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_deeply_nested_json_is_refused(stage: Stage) -> None:
    body = b'{"messages": ' + b"[" * 100_000
    response = await stage.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert "64" in response.json()["error"]["message"]


async def test_json_of_countless_values_is_refused(stage: Stage) -> None:
    body = b'{"messages": [' + b"[]," * 1_000_000 + b"0]}"
    response = await stage.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400


async def test_another_content_type_is_refused(stage: Stage) -> None:
    response = await stage.http.post(
        "/v1/chat/completions",
        content=json.dumps({"messages": user()}),
        headers={"content-type": "text/plain"},
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/docs", 404)],
)
async def test_paths_that_are_not_there_answer_in_the_same_shape(
    stage: Stage, method: str, path: str, status: int
) -> None:
    response = await stage.http.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_decoder_passes_through_with_its_delay(stage: Stage, stream: bool) -> None:
    stage.decoder.failure = Overloaded("the queue is full", retry_after_s=6.2)
    response = await stage.post(messages=user(), stream=stream)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["code"] == "queue_full"


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"max_tokens": 1_000_000}, "max_tokens"),
        ({"max_completion_tokens": 1_000_000}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 1_000_000}, "max_completion_tokens"),
        ({"messages": user("word " * 200_000)}, "messages"),
        ({"messages": user("word " * 5_000)}, "messages"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_clients_know_that_the_context_is_full_and_by_which_field(
    stage: Stage, sent: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await stage.openai.chat.completions.create(**{"model": "test", "messages": user(), **sent})
    error = caught.value
    assert error.param == param
    # LangChain for Python reads the first, for Node the third, LiteLLM the second.
    assert error.code == "context_length_exceeded"
    assert "context_length_exceeded" in str(error)
    assert "this model's maximum context length is" in str(error).lower()
    assert "exceeds the context window" in error.message


async def test_a_decoders_complaint_names_the_clients_field(stage: Stage) -> None:
    stage.decoder.failure = PromptTooLong("too long", param="input_ids")
    response = await stage.post(messages=user())
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


async def test_a_decoders_complaint_about_our_own_fields_is_our_error(stage: Stage) -> None:
    stage.decoder.failure = InvalidRequest("bad shape", param="position_ids")
    response = await stage.post(messages=user())
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "internal error"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_bug_shows_none_of_its_text(stage: Stage, stream: bool) -> None:
    stage.decoder.needed_too = [7]
    response = await stage.post(messages=user(), stream=stream)
    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["code"], error["message"]) == ("internal_error", "internal error")
    assert response.headers["x-request-id"]


async def test_a_image_the_vision_tier_refuses_is_named_by_its_place(stage: Stage) -> None:
    stage.vision.failures = [
        InvalidRequest("image is damaged", reason=Reason.INVALID_IMAGE, param="image")
    ]
    response = await stage.post(messages=one_part(image_part()))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, PART)
    assert error["code"] == "invalid_image"


async def test_a_good_request_works_after_all_these(stage: Stage) -> None:
    assert (await stage.post(messages=user())).status_code == 200


async def test_an_id_of_a_request_in_flight_is_a_conflict(stage: Stage) -> None:
    stage.decoder.failure = AlreadyExists("request_id is in flight", param="request_id")
    response = await stage.post(messages=user())
    error = response.json()["error"]
    assert response.status_code == 409
    assert (error["code"], error["param"]) == ("request_id_in_use", "request_id")
