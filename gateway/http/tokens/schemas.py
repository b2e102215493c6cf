"""The bodies of POST /tokenize and /detokenize, with vLLM's names."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from gateway.http.chat.schemas import Schema, TemplateOptions, Turns
from gateway.http.chat.shapes import IDS, PROMPT, Tools
from gateway.request.conversation import Effort

MAX_DETOKENIZED = 1_000_000


def _one_of_both(schema: dict[str, Any]) -> None:
    """A text is required, or else a conversation."""
    for given, other in (("prompt", "messages"), ("messages", "prompt")):
        told = {given: {"not": {"type": "null"}}, other: {"type": "null"}}
        schema.setdefault("anyOf", []).append({"required": [given], "properties": told})


class TokenizeRequest(Schema):
    """A text, or a conversation with its images; exactly one."""

    model_config = ConfigDict(json_schema_extra=_one_of_both)

    model: str | None = None
    prompt: Annotated[str | None, WithJsonSchema(PROMPT)] = None
    messages: Turns | None = None
    tools: Tools = None
    add_vision_id: bool | None = None
    chat_template_kwargs: TemplateOptions = None
    enable_thinking: bool | None = None
    reasoning_effort: Annotated[Effort | None, Field(strict=False)] = None
    return_token_strs: bool | None = None
    # As it is here anyway: nothing is added to a text, and every answer is a new turn.
    add_special_tokens: bool | None = None
    add_generation_prompt: Annotated[bool | None, WithJsonSchema({"enum": [True, None]})] = None
    continue_final_message: Annotated[bool | None, WithJsonSchema({"enum": [False, None]})] = None


class DetokenizeRequest(Schema):
    """Token ids."""

    model: str | None = None
    tokens: Annotated[
        list[int],
        Field(max_length=MAX_DETOKENIZED),
        WithJsonSchema({**IDS, "maxItems": MAX_DETOKENIZED}),
    ]
