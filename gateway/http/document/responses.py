"""What /v1/responses answers, as the OpenAPI document tells it."""

from typing import Any, Literal

from pydantic import RootModel

from gateway.http.document.answers import Answer, TokenLogprob

Status = Literal["in_progress", "completed", "incomplete"]


class OutputText(Answer):
    """The text of a message."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ReasoningText(Answer):
    """The text of a thought."""

    type: Literal["reasoning_text"]
    text: str


class OutputMessage(Answer):
    """What the model said."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class OutputReasoning(Answer):
    """What the model thought."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[Any]
    content: list[ReasoningText]


class OutputCall(Answer):
    """A call of a tool."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


class ResponseUsage(Answer):
    """Token counts of an answer."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseFailure(Answer):
    """What went wrong midway."""

    code: str
    message: str


class ResponseObject(Answer):
    """An answer, whole or as far as it has come."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Status | Literal["failed"]
    incomplete_details: dict[str, str] | None
    error: ResponseFailure | None
    output: list[OutputItem]
    usage: ResponseUsage | None
    model: str
    previous_response_id: str | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    truncation: Literal["auto", "disabled"]
    text: dict[str, Any]
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    reasoning: dict[str, str | None]
    store: bool
    background: Literal[False]
    service_tier: str
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None


class Numbered(Answer):
    """What every event of a stream has."""

    sequence_number: int


class SnapshotEvent(Numbered):
    """The answer as far as it has come."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class ItemEvent(Numbered):
    """An item begins or ends."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: OutputItem


class PlacedEvent(Numbered):
    """Something of one item."""

    item_id: str
    output_index: int


class PartEvent(PlacedEvent):
    """An item's part begins or ends."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    content_index: int
    part: OutputText | ReasoningText


class TextDeltaEvent(PlacedEvent):
    """More of a text."""

    type: Literal["response.output_text.delta"]
    content_index: int
    delta: str
    logprobs: list[TokenLogprob]


class TextDoneEvent(PlacedEvent):
    """A whole text."""

    type: Literal["response.output_text.done"]
    content_index: int
    text: str
    logprobs: list[TokenLogprob]


class ThoughtDeltaEvent(PlacedEvent):
    """More of a thought."""

    type: Literal["response.reasoning_text.delta"]
    content_index: int
    delta: str


class ThoughtDoneEvent(PlacedEvent):
    """A whole thought."""

    type: Literal["response.reasoning_text.done"]
    content_index: int
    text: str


class ArgumentsDeltaEvent(PlacedEvent):
    """More of a call's arguments."""

    type: Literal["response.function_call_arguments.delta"]
    delta: str


class ArgumentsDoneEvent(PlacedEvent):
    """A call's whole arguments."""

    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class ResponseEvent(
    RootModel[
        SnapshotEvent
        | ItemEvent
        | PartEvent
        | TextDeltaEvent
        | TextDoneEvent
        | ThoughtDeltaEvent
        | ThoughtDoneEvent
        | ArgumentsDeltaEvent
        | ArgumentsDoneEvent
    ]
):
    """The data of an event of a streamed answer; the last event's is [DONE]."""


class InputTokens(Answer):
    """How many tokens a prompt has."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class Deleted(Answer):
    """An answer that is kept no longer."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]
