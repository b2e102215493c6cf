"""Tools through each API: offered, chosen, called, and their results taken back."""

import json
from typing import Any

import pytest

from tests.unit.gateway.stage import Stage, user
from tests.unit.gateway.test_tools import ARGUMENTS, CALL, id_of, says

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
RESPONSES, MESSAGES, OLLAMA = "/v1/responses", "/v1/messages", "/api/chat"
TOOLS: dict[str, Any] = {
    RESPONSES: [{"type": "function", "name": "get_weather", "parameters": PARAMETERS}],
    MESSAGES: [{"name": "get_weather", "input_schema": PARAMETERS}],
    OLLAMA: [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}],
}
ASKED: dict[str, dict[str, Any]] = {
    RESPONSES: {"input": "Hello?"},
    MESSAGES: {"messages": user(), "max_tokens": 64},
    OLLAMA: {"messages": user(), "stream": False},
}


async def asked(stage: Stage, path: str, **more: Any) -> Any:
    answer = await stage.http.post(path, json={**ASKED[path], "tools": TOOLS[path], **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_call_comes_in_the_words_of_each_api(stage: Stage) -> None:
    says(stage, f"I look.\n{CALL}")
    body = await asked(stage, RESPONSES)
    said, call = body["output"]
    assert said["content"][0]["text"] == "I look."
    assert (call["type"], call["name"], call["arguments"]) == (
        "function_call",
        "get_weather",
        ARGUMENTS,
    )
    body = await asked(stage, MESSAGES)
    assert body["stop_reason"] == "tool_use"
    assert body["content"][1]["input"] == json.loads(ARGUMENTS)
    body = await asked(stage, OLLAMA)
    (call,) = body["message"]["tool_calls"]
    assert call["function"]["arguments"] == json.loads(ARGUMENTS)
    # One prompt, whatever the API.
    first, *others = (list(start.input_ids) for start in stage.decoder.starts)
    assert all(ids == first for ids in others)


@pytest.mark.parametrize(
    ("path", "choice"),
    [
        (RESPONSES, "required"),
        (RESPONSES, {"type": "function", "name": "get_weather"}),
        (
            RESPONSES,
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "get_weather"}],
            },
        ),
        (MESSAGES, {"type": "any"}),
        (MESSAGES, {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True}),
    ],
)
async def test_a_call_can_be_required(stage: Stage, path: str, choice: Any) -> None:
    says(stage, CALL)
    await asked(stage, path, tool_choice=choice)
    (start,) = stage.decoder.starts
    assert start.HasField("constraint")
    assert not start.HasField("constraint_from_token")


@pytest.mark.parametrize(("path", "choice"), [(RESPONSES, "none"), (MESSAGES, {"type": "none"})])
async def test_no_choice_leaves_the_tools_out(stage: Stage, path: str, choice: Any) -> None:
    await asked(stage, path, tool_choice=choice)
    (start,) = stage.decoder.starts
    assert not start.HasField("constraint")
    assert id_of(stage, "<tool_call>") not in list(start.input_ids)


@pytest.mark.parametrize(
    ("path", "change", "named"),
    [
        (RESPONSES, {"tool_choice": {"type": "web_search"}}, "tool_choice"),
        (RESPONSES, {"tool_choice": {"type": "function", "name": "other"}}, "'other'"),
        (
            RESPONSES,
            {"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]},
            "tools[0].parameters.type",
        ),
        (RESPONSES, {"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        (MESSAGES, {"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        (
            MESSAGES,
            {"tools": [{"name": "f", "input_schema": {"type": "array"}}]},
            "tools[0].input_schema.type",
        ),
        (MESSAGES, {"tools": [{"name": "f"}]}, "tools[0].input_schema"),
    ],
)
async def test_a_tool_at_fault_is_named_as_the_client_wrote_it(
    stage: Stage, path: str, change: dict[str, Any], named: str
) -> None:
    body = {**ASKED[path], "tools": TOOLS[path], **change}
    answer = await stage.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert named in answer.json()["error"]["message"]


async def test_a_call_and_its_result_make_the_same_prompt_in_each_api(stage: Stage) -> None:
    says(stage, CALL)
    first = await asked(stage, RESPONSES)
    call = first["output"][0]
    stage.will_say("8 degrees")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "8"}
    stage.decoder.starts.clear()
    await asked(stage, RESPONSES, input=[output], previous_response_id=first["id"])
    question = {"role": "user", "content": "Hello?"}
    await asked(stage, RESPONSES, input=[question, call, output])
    function = {"name": "get_weather", "arguments": json.loads(ARGUMENTS)}
    await asked(
        stage,
        OLLAMA,
        messages=[
            question,
            {"role": "assistant", "tool_calls": [{"function": function}]},
            {"role": "tool", "content": "8", "tool_name": "get_weather"},
        ],
    )
    use = {"type": "tool_use", "id": "x", "name": "get_weather", "input": json.loads(ARGUMENTS)}
    result = {"type": "tool_result", "tool_use_id": "x", "content": "8"}
    await asked(
        stage,
        MESSAGES,
        messages=[
            question,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [result]},
        ],
    )
    ids, *others = (list(start.input_ids) for start in stage.decoder.starts)
    assert all(other == ids for other in others)
