"""What the routes answer, as the OpenAPI document tells it; nothing is built from these models.

A test validates real answers against them, so that they stay true.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel


class Answer(BaseModel):
    """No other fields than these."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Answer):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Answer):
    """The body of every failure, and the data of a stream's `error` event."""

    error: ErrorDetail


class Usage(Answer):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int] | None = None


class CandidateToken(Answer):
    """A token that might have stood there; `bytes` are exact where `token` cannot be."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(CandidateToken):
    """A token of an answer, and the likeliest at its place."""

    top_logprobs: list[CandidateToken]


class Logprobs(Answer):
    """Of an answer's text; thoughts and calls have none."""

    content: list[TokenLogprob]
    refusal: None


class CalledFunction(Answer):
    """The tool's name and its arguments, JSON text that fits the tool's schema."""

    name: str
    arguments: str


class ToolCallAnswer(Answer):
    """A call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Answer):
    """A whole answer; its thought by both names that clients know."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


FinishReason = Literal["stop", "length", "tool_calls"]


class Choice(Answer):
    """One of the answers of a request."""

    index: int
    message: AssistantMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class Completion(Answer):
    """What every object of an answer has."""

    id: str
    created: Annotated[int, Field(description="Unix seconds")]
    model: str
    system_fingerprint: str


class ChatCompletion(Completion):
    """A whole answer in a conversation."""

    object: Literal["chat.completion"]
    choices: list[Choice]
    usage: Usage


class FunctionDelta(Answer):
    """Some of a call: its name once, its arguments in pieces."""

    name: str | None = None
    arguments: str


class ToolCallDelta(Answer):
    """Some of a call; the first piece of each has its id."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Answer):
    """Some of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChoiceDelta(Answer):
    """Some of one of the answers of a request."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(Completion):
    """The data of an event of a streamed answer; the last event's is [DONE]."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChoiceDelta]
    usage: Usage | None = None


class TextLogprobs(Answer):
    """Four lists, one entry a token."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Answer):
    """One continuation, or some of it."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason | None


class TextCompletion(Completion):
    """A whole answer to plain prompts, or the data of an event of a streamed one."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class Tokenized(Answer):
    """A prompt's tokens, a placeholder for each token of an image."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Answer):
    """The text of tokens."""

    prompt: str


class ModelCard(BaseModel):
    """A model, what it takes, and the limits of that."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    input_modalities: list[str]
    output_modalities: list[str]
    image_limits: dict[str, Any]


class ModelList(Answer):
    """The one model."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(Answer):
    """How this server and its tiers are."""

    status: Literal["ok", "degraded", "unavailable", "draining"]
    ready: bool
    model: str
    tiers: dict[str, Any]


class Live(Answer):
    """The process answers."""

    status: Literal["live"]


class Version(Answer):
    """The release."""

    version: str


class Metrics(RootModel[str]):
    """What Prometheus reads."""


class Document(RootModel[dict[str, Any]]):
    """OpenAPI 3.1."""
