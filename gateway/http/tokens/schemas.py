"""The bodies of POST /tokenize and /detokenize, with vLLM's names."""

from typing import Annotated, Any

from pydantic import Field

from gateway.http.chat.schemas import ChatMessage, Schema
from gateway.request.conversation import Effort

MAX_DETOKENIZED = 1_000_000


class TokenizeRequest(Schema):
    """A text, or a conversation with its images; exactly one."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    add_vision_id: bool | None = None
    chat_template_kwargs: dict[str, str | int | float | bool | None] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: Annotated[Effort | None, Field(strict=False)] = None
    return_token_strs: bool | None = None
    # As it is here anyway: nothing is added to a text, and every answer is a new turn.
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class DetokenizeRequest(Schema):
    """Token ids."""

    model: str | None = None
    tokens: Annotated[list[int], Field(max_length=MAX_DETOKENIZED)]
