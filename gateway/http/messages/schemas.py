"""The body of POST /v1/messages, as Anthropic's clients send it.

Types only; ranges are checked by `Question.check`. Fields that would change an answer in a way
this server does not do are refused, never ignored. Content is read by
`gateway.http.messages.blocks`, because its form depends on its type.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.http.chat.schemas import Schema, TokenLimit
from gateway.request.conversation import Effort


class Thinking(Schema):
    """Whether to think first; how long a thought may be is the checkpoint's own."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputConfig(Schema):
    """Of the answer: its form, and how much of an effort it is worth."""

    effort: Annotated[Effort | None, Field(strict=False)] = None
    format: dict[str, Any] | None = None


class ToolChoice(Schema):
    """Whether tools may or must be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class PromptBody(Schema):
    """What shapes the prompt; all of what is counted without an answer."""

    model: str | None = None
    messages: list[Any]
    system: str | list[Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None  # the older place of output_config.format
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
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    # Extensions, named as in other open servers.
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    priority: int | None = None
