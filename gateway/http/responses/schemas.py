"""The body of POST /v1/responses, as OpenAI's clients and Open Responses have it.

Types only; ranges are checked by `Question.check`. Fields that would change an answer in a way
this server does not do are refused, never ignored. Items of the input are read by
`gateway.http.responses.items`, because their form depends on their type.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.http.chat.schemas import CacheSalt, Schema, TokenLimit
from gateway.http.door.typed import one_or_many
from gateway.request.conversation import Effort

MAX_METADATA = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_CHARS = 512


class EventOptions(Schema):
    """Padding against eavesdroppers is not sent, and the answer is the same."""

    include_obfuscation: bool | None = None


class TextFormat(Schema):
    """What the answer has to look like; the schema stands beside its name."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    # Underscored, because pydantic's models have a method of that name.
    schema_: Annotated[Any, Field(alias="schema")] = None
    strict: bool | None = None


class TextOptions(Schema):
    """Of the answer's text; `medium` is how long every answer is."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Schema):
    """Of the thought; it is always told whole, whatever summary of it is wanted."""

    effort: Annotated[Effort | None, Field(strict=False)] = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


MetadataKey = Annotated[str, Field(max_length=MAX_METADATA_KEY_CHARS)]
MetadataValue = Annotated[str, Field(max_length=MAX_METADATA_CHARS)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)]


class InputBody(Schema):
    """What shapes the prompt; all of what is counted without an answer."""

    model: str | None = None
    input: str | list[Any] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None


class CreateResponse(InputBody):
    """OpenAI's fields, and after them the common extensions of open servers."""

    stream: bool | None = None
    stream_options: EventOptions | None = None
    store: bool | None = None
    background: Literal[False] | None = None
    include: list[str] | None = None
    max_output_tokens: TokenLimit | None = None
    metadata: Metadata | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    # Noted by OpenAI, without effect on the answer; `max_tool_calls` is about tools of its own.
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    # Extensions, named as in other open servers.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(one_or_many)] = None
    ignore_eos: bool | None = None
    cache_salt: CacheSalt | None = None
    priority: int | None = None
