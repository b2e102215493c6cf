"""The OpenAPI document tells the truth of Responses, Messages and Ollama's API too."""

import json
from typing import Any

import pytest

from gateway.http.document.openapi import openapi
from gateway.http.document.operations import OPERATIONS
from protos.wire.errors import Overloaded
from tests.unit.gateway.http.test_api_errors import BODIES
from tests.unit.gateway.http.test_api_tools import TOOLS
from tests.unit.gateway.http.test_document import assert_told, body_schema, faults
from tests.unit.gateway.stage import Stage
from tests.unit.gateway.test_tools import CALL, says

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOGPROBS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    "/api/chat": {"logprobs": True, "top_logprobs": 2},
}


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(json.dumps(openapi(OPERATIONS)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", sorted({*TOOLS, "/api/generate"}))
async def test_answers_are_as_told(stage: Stage, document: Any, path: str, stream: bool) -> None:
    if path in TOOLS:
        says(stage, f"I look.\n{CALL}")
    tools = {"tools": TOOLS[path]} if path in TOOLS else {}
    asked = {**BODIES[path], **tools, **LOGPROBS.get(path, {}), "stream": stream}
    assert faults(document, body_schema(document, path), asked) == []
    answer = await stage.http.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    assert_told(document, path, answer)
    stage.decoder.failure_after = (1, Overloaded("full"))
    failed = await stage.http.post(path, json=asked)
    if stream and path == "/v1/responses":
        *_, last = failed.text.split("data: ")
        schema = document["components"]["schemas"]["ResponseEvent"]
        assert faults(document, schema, json.loads(last)) == []
    else:
        assert_told(document, path, failed)


async def test_the_other_answers_are_as_told(stage: Stage, document: Any) -> None:
    for path in ("/v1/responses/input_tokens", "/v1/messages/count_tokens"):
        assert_told(document, path, await stage.http.post(path, json=BODIES[path]))
    for path in ("/api/chat", "/api/generate"):
        assert_told(document, path, await stage.http.post(path, json={"model": "test"}))
    assert_told(document, "/api/show", await stage.http.post("/api/show", json={"model": "test"}))
    for path in ("/api/tags", "/api/version"):
        assert_told(document, path, await stage.http.get(path))
    kept = (await stage.http.post("/v1/responses", json={"input": "Hello?"})).json()["id"]
    for method in ("GET", "DELETE", "GET"):
        answer = await stage.http.request(method, f"/v1/responses/{kept}")
        assert_told(document, "/v1/responses/{name}", answer)


@pytest.mark.parametrize("path", sorted(BODIES))
async def test_a_field_that_is_not_told_is_refused(stage: Stage, document: Any, path: str) -> None:
    asked = {**BODIES[path], "mood": 1}
    assert faults(document, body_schema(document, path), asked)
    failed = await stage.http.post(path, json=asked)
    assert failed.status_code == 400
    assert_told(document, path, failed)
