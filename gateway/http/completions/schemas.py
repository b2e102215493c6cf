"""The body of POST /v1/completions, as OpenAI's clients send it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.http.chat.schemas import AnswerRequest
from gateway.http.chat.shapes import prompts
from gateway.http.door.shapes import TopLogprobs, within
from gateway.request.job import MAX_CHOICES

MAX_PROMPTS = 16


def _several(given: Any) -> Any:
    """One text, or one list of token ids, as several of one."""
    is_ids = isinstance(given, list) and bool(given) and all(type(item) is int for item in given)
    return [given] if isinstance(given, str) or is_ids else given


class CompletionRequest(AnswerRequest):
    """OpenAI's fields, and the common extensions."""

    prompt: Annotated[
        list[str | list[int]],
        Field(min_length=1, max_length=MAX_PROMPTS),
        BeforeValidator(_several),
        WithJsonSchema(prompts(MAX_PROMPTS)),
    ]
    logprobs: TopLogprobs = None
    best_of: Annotated[int | None, within(1, MAX_CHOICES)] = None
    suffix: Annotated[str | None, WithJsonSchema({"enum": ["", None]})] = None
