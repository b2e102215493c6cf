"""The body of POST /v1/completions, as OpenAI's clients send it."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gateway.http.chat.schemas import AnswerRequest

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
        BeforeValidator(
            _several, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    logprobs: int | None = None
    best_of: int | None = None
    suffix: str | None = None
