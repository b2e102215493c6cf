"""The body of POST /v1/responses, as OpenAI's clients and Open Responses have it.

Types only; ranges are checked by `Question.check`. Fields that would change an answer in a way
this server does not do are refused, never ignored. Items of the input are read by
`gateway.http.responses.items`, because their form depends on their type.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from gateway.http.chat.schemas import CacheSalt, Schema, TokenLimit
from gateway.http.chat.shapes import instead
from gateway.http.door.shapes import Priority, Stop, TopLogprobs, exactly, only, told
from gateway.http.responses.shapes import FORMATS, Input, ToolChoice, Tools
from gateway.request.conversation import Effort

MAX_METADATA = 16
MAX_METADATA_KEY_CHARS = 64
MAX_METADATA_CHARS = 512


LOGPROBS = "message.output_text.logprobs"

# What `include` may hold besides. Thoughts are told in the open, and images are the client's own;
# the rest is about tools that are not here.
IDLE_INCLUDES = (
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
)


class EventOptions(Schema):
    """Padding against eavesdroppers is not sent, and the answer is the same."""

    include_obfuscation: bool | None = None


class TextFormat(Schema):
    """What the answer has to look like; the schema stands beside its name."""

    model_config = ConfigDict(json_schema_extra=instead(FORMATS))

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
    input: Input = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: Tools = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None


class CreateResponse(InputBody):
    """OpenAI's fields, and after them the common extensions of open servers."""

    stream: bool | None = None
    stream_options: EventOptions | None = None
    store: bool | None = None
    background: Annotated[Literal[False] | None, exactly(False)] = None
    include: Annotated[list[str] | None, only((LOGPROBS, *IDLE_INCLUDES))] = None
    max_output_tokens: TokenLimit | None = None
    metadata: Metadata | None = None
    temperature: Annotated[float | None, told("temperature")] = None
    top_p: Annotated[float | None, told("top_p")] = None
    presence_penalty: Annotated[float | None, told("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, told("frequency_penalty")] = None
    top_logprobs: TopLogprobs = None
    # Noted by OpenAI, without effect on the answer; `max_tool_calls` is about tools of its own.
    max_tool_calls: int | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    # Extensions, named as in other open servers.
    top_k: Annotated[int | None, told("top_k")] = None
    min_p: Annotated[float | None, told("min_p")] = None
    repetition_penalty: Annotated[float | None, told("repetition_penalty")] = None
    seed: Annotated[int | None, told("seed")] = None
    stop: Stop = None
    ignore_eos: bool | None = None
    cache_salt: CacheSalt | None = None
    priority: Priority = None
