"""The streamed cases of Open Responses' compliance suite, over the three real services.

Its other cases are in test_stack_apis.py; DECISIONS.md has the table of all of them. Events are
held to the specification's types, as the suite holds them. The weights are random: a call comes
because `tool_choice` wants one, and its arguments are the grammar's doing.

**Source**: `src/lib/compliance-tests.ts` of github.com/openresponses/openresponses.
"""

import json
from typing import Any

import httpx
import openresponses_types as spec
import pytest

from tests.support.bundles import bundle
from tests.support.stack import ServedStack, Stacks
from tests.unit.gateway.http.responses.events import TYPES

MODEL = "tiny-tied"
# A random model says each of these sooner or later, and so comes to an end.
STOP = list("aeinorst")
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"enum": ["San Francisco, CA"]}},
        "required": ["location"],
        "additionalProperties": False,  # a random model would add them without end
    },
}


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(bundle("tied"))


def said(text: str) -> list[dict[str, Any]]:
    return [{"type": "message", "role": "user", "content": text}]


def events(served: ServedStack, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, each of its type, the last of them a complete response."""
    asked = {"model": MODEL, "stream": True, "max_output_tokens": 1024, **body}
    answer = httpx.post(f"{served.stack.http_url}/responses", json=asked, timeout=60.0)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: {")]
    found = [json.loads(line.removeprefix("data: ")) for line in lines]
    for event in found:
        TYPES[event["type"]].model_validate(event)
    last = found[-1]["response"]
    spec.ResponseResource.model_validate(last)
    assert last["status"] == "completed"
    return found


def test_streaming_response(served: ServedStack) -> None:
    found = events(served, input=said("Count from 1 to 5."), stop=STOP)
    types = [event["type"] for event in found]
    assert types[0] == "response.created" and types[-1] == "response.completed"
    assert "response.output_text.delta" in types


def test_tool_calling_streaming(served: ServedStack) -> None:
    found = events(
        served,
        input=said("What's the weather like in San Francisco?"),
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    items = {
        event["type"]: event["item"]["type"]
        for event in found
        if event["type"].startswith("response.output_item.")
    }
    assert items["response.output_item.added"] == "function_call"
    assert items["response.output_item.done"] == "function_call"
    pieces = [
        event["delta"]
        for event in found
        if event["type"] == "response.function_call_arguments.delta"
    ]
    (done,) = (
        event["arguments"]
        for event in found
        if event["type"] == "response.function_call_arguments.done"
    )
    assert "".join(pieces) == done
    assert json.loads(done) == {"location": "San Francisco, CA"}


def test_a_pdf_of_file_input_is_refused_by_name(served: ServedStack) -> None:
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "JVBERi0xLjQK"}
    message = {"type": "message", "role": "user", "content": [file]}
    asked = {"model": MODEL, "input": [message]}
    answer = httpx.post(f"{served.stack.http_url}/responses", json=asked, timeout=60.0)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "input[0].content[0]" and "PDF" in error["message"]
