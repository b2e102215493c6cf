"""The body of POST /v1/messages, as Anthropic's clients send it.

Types only; ranges are checked by `Question.check`. Fields that would change an answer in a way
this server does not do are refused, never ignored. Content is read by
`gateway.http.messages.blocks`, because its form depends on its type.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from gateway.http.chat.schemas import Schema, TokenLimit
from gateway.http.chat.shapes import instead
from gateway.http.door.shapes import Priority, StopSequences, told
from gateway.http.messages.shapes import CHOICES, Form, System, Tools, Turns
from gateway.request.conversation import Effort


class Thinking(Schema):
    """Whether to think first; how long a thought may be is the checkpoint's own."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputConfig(Schema):
    """Of the answer: its form, and how much of an effort it is worth."""

    effort: Annotated[Effort | None, Field(strict=False)] = None
    format: Form = None


class ToolChoice(Schema):
    """Whether tools may or must be called, and which."""

    model_config = ConfigDict(json_schema_extra=instead(CHOICES))

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class PromptBody(Schema):
    """What shapes the prompt; all of what is counted without an answer."""

    model: str | None = None
    messages: Turns
    system: System = None
    tools: Tools = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Form = None  # the older place of output_config.format
    # About caches, bills and logs, and what may be left out of a long conversation to save room:
    # the answer is the same, or knows more.
    cache_control: Any = None
    context_management: Any = None
    metadata: Any = None
    service_tier: str | None = None
    inference_geo: str | None = None
    speed: str | None = None
    diagnostics: Any = None
    billing_policy: Any = None
    fallbacks: Any = None
    fallback_credit_token: Any = None
    user_profile_id: str | None = None
    # Servers of tools: none is asked here, so only an empty list says nothing.
    mcp_servers: Annotated[list[Any], Field(max_length=0)] | None = None


class CreateMessage(PromptBody):
    """Anthropic's fields, and after them the common extensions of open servers."""

    max_tokens: TokenLimit
    stream: bool | None = None
    stop_sequences: StopSequences = None
    temperature: Annotated[float | None, told("temperature")] = None
    top_p: Annotated[float | None, told("top_p")] = None
    top_k: Annotated[int | None, told("top_k")] = None
    # Extensions, named as in other open servers.
    min_p: Annotated[float | None, told("min_p")] = None
    repetition_penalty: Annotated[float | None, told("repetition_penalty")] = None
    presence_penalty: Annotated[float | None, told("presence_penalty")] = None
    frequency_penalty: Annotated[float | None, told("frequency_penalty")] = None
    seed: Annotated[int | None, told("seed")] = None
    priority: Priority = None
