"""Streams of /v1/responses, each event held to its type in the Open Responses specification."""

import json
from typing import Any

import openresponses_types as spec
from pydantic import BaseModel

from tests.unit.gateway.stage import Stage

TYPES: dict[str, type[BaseModel]] = {
    "response.created": spec.ResponseCreatedStreamingEvent,
    "response.in_progress": spec.ResponseInProgressStreamingEvent,
    "response.completed": spec.ResponseCompletedStreamingEvent,
    "response.failed": spec.ResponseFailedStreamingEvent,
    "response.incomplete": spec.ResponseIncompleteStreamingEvent,
    "response.output_item.added": spec.ResponseOutputItemAddedStreamingEvent,
    "response.output_item.done": spec.ResponseOutputItemDoneStreamingEvent,
    "response.content_part.added": spec.ResponseContentPartAddedStreamingEvent,
    "response.content_part.done": spec.ResponseContentPartDoneStreamingEvent,
    "response.output_text.delta": spec.ResponseOutputTextDeltaStreamingEvent,
    "response.output_text.done": spec.ResponseOutputTextDoneStreamingEvent,
    "response.function_call_arguments.delta": spec.ResponseFunctionCallArgumentsDeltaStreamingEvent,
    "response.function_call_arguments.done": spec.ResponseFunctionCallArgumentsDoneStreamingEvent,
}


async def checked_events(stage: Stage, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream that ends with [DONE], in order."""
    answer = await stage.http.post("/v1/responses", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *blocks, last = answer.text.rstrip("\n").split("\n\n")
    assert last == "data: [DONE]"
    return [_event(block) for block in blocks]


def _event(block: str) -> dict[str, Any]:
    name, data = block.split("\n")
    event: dict[str, Any] = json.loads(data.removeprefix("data: "))
    assert name == f"event: {event['type']}"
    TYPES[event["type"]].model_validate(event)
    return event
