"""Values of a wrong type that pass for right ones in Python are refused, by the field's name."""

from typing import Any

import pytest

from tests.support.prompts import png
from tests.unit.gateway.http.test_api_tools import TOOLS
from tests.unit.gateway.stage import Stage, data_url, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

IMAGE = {"type": "input_image", "image_url": data_url(png(64, 64))}
SYSTEM = {"type": "image", "source": {"type": "url", "url": IMAGE["image_url"]}}
NOTHING: tuple[Any, ...] = ({}, "", 0, False)


def shown(part: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/generate", {"prompt": "a", "raw": 0}, "raw"),
        ("/api/chat", {"messages": user(), "options": {"vocab_only": 0}}, "options.vocab_only"),
        ("/api/chat", {"messages": user(), "options": {"mirostat": False}}, "options.mirostat"),
        ("/v1/responses", {"input": "a", "background": 0}, "background"),
        *(
            ("/v1/responses", {"input": shown({**IMAGE, "detail": none})}, "detail")
            for none in NOTHING
        ),
        ("/v1/messages", {"max_tokens": 8, "messages": user(), "system": [SYSTEM]}, "system[0]"),
        (
            "/v1/completions",
            {"prompt": "a", "structured_outputs": {"choice": []}},
            "structured_outputs.choice",
        ),
    ],
    ids=str,
)
async def test_a_value_that_only_seems_right_is_refused(
    stage: Stage, path: str, body: dict[str, Any], named: str
) -> None:
    answer = await stage.http.post(path, json=body)
    assert answer.status_code == 400
    assert named in answer.text
    assert stage.decoder.starts == []


@pytest.mark.parametrize("path", sorted(TOOLS))
async def test_a_tools_description_is_text(stage: Stage, path: str) -> None:
    bodies: dict[str, Any] = {
        "/v1/responses": {"input": "Hello?"},
        "/v1/messages": {"max_tokens": 8, "messages": user()},
        "/api/chat": {"messages": user()},
    }
    tool = dict(TOOLS[path][0])
    if "function" in tool:
        tool["function"] = {**tool["function"], "description": 5}
    else:
        tool["description"] = 5
    answer = await stage.http.post(path, json={**bodies[path], "tools": [tool]})
    assert answer.status_code == 400
    assert "description" in answer.text


async def test_every_method_of_a_path_is_allowed_by_name(stage: Stage) -> None:
    answer = await stage.http.options("/v1/responses/resp_1")
    assert answer.status_code == 405
    assert {"GET", "DELETE"} <= set(answer.headers["allow"].split(", "))
