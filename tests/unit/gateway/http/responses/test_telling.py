"""An answer with everything in it, as a Response."""

from typing import Any

import openresponses_types as spec
from openai.types.responses import Response, ResponseFunctionToolCall, ResponseReasoningItem

from gateway.answer.events import FinishReason
from gateway.http.responses.telling import ResponseTelling
from gateway.request.conversation import Message, Role, ToolCall
from protos.wire.errors import Overloaded
from tests.unit.gateway.http.door.answers import ARGUMENTS, call, end, everything, text, told
from tests.unit.gateway.http.responses.events import TYPES

ABOUT: dict[str, Any] = {
    "model": "test",
    "previous_response_id": None,
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "temperature": 1.0,
    "reasoning": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": True,
    "background": False,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}


def telling(kept: list[Any]) -> ResponseTelling:
    return ResponseTelling(
        ABOUT, token_bytes=None, keep=lambda body, message: kept.append((body, message))
    )


def test_thought_text_and_calls_are_items_in_their_order() -> None:
    kept: list[Any] = []
    response = telling(kept)
    events = told(response, everything())
    body = response.whole()
    spec.ResponseResource.model_validate(body)
    assert [item["type"] for item in body["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert body["usage"]["output_tokens_details"] == {"reasoning_tokens": 5}
    assert body["usage"]["input_tokens_details"]["cached_tokens"] == 10
    parsed = Response.model_validate(body)
    thought, _, first, second = parsed.output
    assert isinstance(thought, ResponseReasoningItem)
    assert thought.content is not None
    assert thought.content[0].text == "Where?"
    assert parsed.output_text == "I look."
    assert isinstance(first, ResponseFunctionToolCall)
    assert (first.name, first.arguments, first.call_id) == ("get_weather", ARGUMENTS, "call_0")
    assert isinstance(second, ResponseFunctionToolCall)
    assert (second.name, second.arguments) == ("get_time", "{}")
    for event in events:
        if event["type"] in TYPES:
            TYPES[event["type"]].model_validate(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ((kept_body, message),) = kept
    assert kept_body == body
    assert message == Message(
        role=Role.ASSISTANT,
        content="I look.",
        reasoning="Where?",
        tool_calls=(
            ToolCall(name="get_weather", arguments=ARGUMENTS, call_id="call_0"),
            ToolCall(name="get_time", arguments="{}", call_id="call_1"),
        ),
    )


def test_events_name_their_item_and_add_up_to_it() -> None:
    response = telling([])
    events = told(response, everything())
    for index, item in enumerate(response.whole()["output"]):
        about = [event for event in events if event.get("output_index") == index]
        assert about[0]["type"] == "response.output_item.added"
        assert about[0]["item"]["status"] == "in_progress"
        assert about[-1] == {**about[-1], "type": "response.output_item.done", "item": item}
        assert {event["item_id"] for event in about if "item_id" in event} == {item["id"]}
        whole = item.get("arguments") or item["content"][0]["text"]
        assert "".join(event.get("delta", "") for event in about) == whole
    # Open Responses names these in another way; OpenAI's clients know them so.
    kinds = [event["type"] for event in events]
    assert kinds.count("response.reasoning_text.delta") == 2
    assert kinds.count("response.reasoning_text.done") == 1


def test_a_call_that_is_cut_is_incomplete() -> None:
    response = telling([])
    told(response, [*call(0, "f", '{"a": '), end(FinishReason.LENGTH)])
    body = response.whole()
    assert body["status"] == "incomplete"
    assert body["output"][0]["status"] == "incomplete"
    assert body["output"][0]["arguments"] == '{"a": '


def test_what_failed_says_how_far_it_came_and_is_not_kept() -> None:
    kept: list[Any] = []
    response = telling(kept)
    told(response, [text("I ")])
    *_, last = response.failed(Overloaded("full"))
    spec.ResponseFailedStreamingEvent.model_validate(last)
    assert last["response"]["error"] == {"code": "queue_full", "message": "full"}
    assert last["response"]["output"][0]["content"][0]["text"] == "I "
    assert kept == []
