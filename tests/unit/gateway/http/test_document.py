"""GET /openapi.json tells the truth: real answers and real requests are as it says."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from gateway.access.accounts import Account, KeyLimits, Rated
from gateway.config import GatewayConfig
from gateway.http.apis import asking_routes
from gateway.http.document.openapi import openapi
from gateway.http.document.operations import OPERATIONS
from gateway.http.rates import rate_headers
from tests.unit.gateway.http.chat.test_openai_types import HELD, NEEDS, REFUSED
from tests.unit.gateway.http.test_completions import post as complete
from tests.unit.gateway.stage import Stage, about_images, user
from tests.unit.gateway.test_tools import CALL, TOOLS, says

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = {"/health", "/health/ready", "/health/live"}


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(json.dumps(openapi(OPERATIONS)))


async def test_the_document_is_served(stage: Stage, document: Any) -> None:
    assert (await stage.http.get("/openapi.json")).json() == document


async def test_the_headers_of_rate_limits_are_told(document: Any) -> None:
    account = Account("web", KeyLimits(per_minute=dict.fromkeys(Rated, 7)))
    told = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    for name in rate_headers(account):
        assert name in told["200"]["headers"]
        assert name in told["429"]["headers"]
        assert name not in document["paths"]["/health"]["get"]["responses"]["200"]["headers"]


def faults(document: Any, schema: Any, value: Any) -> list[str]:
    whole = {**schema, "components": document["components"]}
    validator = jsonschema.Draft202012Validator(whole)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def answer_schema(document: Any, method: str, path: str, kind: str, status: str) -> Any:
    return document["paths"][path][method]["responses"][status]["content"][kind]["schema"]


def assert_told(document: Any, path: str, response: Any) -> None:
    kind = response.headers["content-type"].partition(";")[0]
    status = str(response.status_code)
    method = response.request.method.lower()
    schema = answer_schema(document, method, path, kind, status)
    if kind == "text/event-stream":
        values = list(events(response.text))
    elif kind == "application/x-ndjson":
        values = list(map(json.loads, response.text.splitlines()))
    else:
        values = [response.json()]
    assert values
    for value in values:
        assert faults(document, schema, value) == []


def events(text: str) -> Iterator[Any]:
    datas = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if "message_start" not in text:  # Anthropic's have no such end
        assert datas.pop() == "[DONE]"
    yield from map(json.loads, datas)


async def test_every_schema_is_one(document: Any) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert name.isidentifier()


async def test_every_route_is_told_and_no_other(stage: Stage, document: Any) -> None:
    for path, methods in document["paths"].items():
        known = path.replace("{name}", "test")
        # None of that name is kept.
        found = (404,) if path == "/v1/responses/{name}" else (200, 400)
        for method in methods:
            assert (await stage.http.request(method, known)).status_code in found, path
            is_open = methods[method]["security"] == [{}]
            assert is_open == (path in OPEN)
        for method in {"get", "post", "put", "delete"} - set(methods):
            if known != "/v1/responses/input_tokens" or method == "put":
                assert (await stage.http.request(method, known)).status_code == 405, path


async def test_no_route_is_served_that_is_not_told(stage: Stage, document: Any) -> None:
    told = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }
    config = GatewayConfig(bundle=str(stage.bundle.path))
    routes = asking_routes(
        config,
        stage.gateway._service,
        threads=stage.gateway._threads,
        token_bytes=stage.gateway._token_bytes,
        vocab_size=1,
        context_length=lambda: 1,
        facts=stage.gateway._model_facts(),
    )
    served = {(route.path, method) for route in routes for method in route.methods or ()}
    assert {one for one in served if one[1] != "HEAD"} <= told


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n": 2, "logprobs": True, "top_logprobs": 2},
        {"tools": TOOLS},
        {"messages": about_images((64, 64))},
        {"stream_options": {"include_usage": True}},
    ],
    ids=str,
)
async def test_answers_in_conversations_are_as_told(
    stage: Stage, document: Any, options: dict[str, Any], stream: bool
) -> None:
    says(stage, f"I look.\n{CALL}")
    if not stream:
        options = {name: value for name, value in options.items() if name != "stream_options"}
    response = await stage.post(**{"messages": user(), "stream": stream, **options})
    assert response.status_code == 200, response.text
    assert_told(document, "/v1/chat/completions", response)


@pytest.mark.parametrize("stream", [False, True])
async def test_continued_texts_are_as_told(stage: Stage, document: Any, stream: bool) -> None:
    response = await complete(stage, prompt=["a", "b"], logprobs=1, stream=stream)
    assert_told(document, "/v1/completions", response)


async def test_the_other_answers_are_as_told(stage: Stage, document: Any) -> None:
    for path in ("/v1/models", "/health", "/health/ready", "/health/live", "/version"):
        assert_told(document, path, await stage.http.get(path))
    assert_told(document, "/v1/models/{name}", await stage.http.get("/v1/models/test"))
    for body in ({"prompt": "a", "return_token_strs": True}, {"messages": user()}):
        assert_told(document, "/tokenize", await stage.http.post("/tokenize", json=body))
    told = await stage.http.post("/detokenize", json={"tokens": [5]})
    assert_told(document, "/detokenize", told)


async def test_failures_are_as_told(stage: Stage, document: Any) -> None:
    for body in ({}, {"messages": user(), "model": "other"}):
        response = await stage.post(**body)
        assert response.status_code in (400, 404)
        assert_told(document, "/v1/chat/completions", response)


def body_schema(document: Any, path: str) -> Any:
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


async def test_what_is_held_is_told_and_nothing_else(document: Any) -> None:
    schema = body_schema(document, "/v1/chat/completions")
    for name, value in HELD.items():
        body = {"messages": user(), name: value, **NEEDS.get(name, {})}
        assert faults(document, schema, body) == [], name
    for name in {*REFUSED, "mood"} - {"verbosity"}:  # which may be medium
        assert faults(document, schema, {"messages": user(), name: REFUSED.get(name, 1)}), name


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a", "stop": "x", "logit_bias": {"5": 1}},
        {"prompt": ["a", "b"], "stop": ["x"], "temperature": 2},
        {"prompt": [1, 2]},
        {"prompt": [[1], [2]], "logprobs": None},
    ],
    ids=str,
)
async def test_prompts_of_every_form_are_told(stage: Stage, document: Any, body: Any) -> None:
    schema = body_schema(document, "/v1/completions")
    assert faults(document, schema, body) == []
    assert (await complete(stage, **body)).status_code == 200
    assert faults(document, schema, body | {"temperature": 2.5})
    assert (await complete(stage, **body | {"temperature": 2.5})).status_code == 400
