"""instructor: https://github.com/567-labs/instructor."""

from typing import Any, Literal

import instructor
import openai
from pydantic import BaseModel

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, URL, about_image, refused, same


class Form(BaseModel):
    """What is asked for."""

    label: Literal["red circle", "blue circle", "red square", "blue square"]


def client(key: str = KEY) -> Any:
    """The client, which holds answers by OpenAI's response_format."""
    return instructor.from_openai(
        openai.OpenAI(base_url=URL, api_key=key, max_retries=0), mode=instructor.Mode.JSON_SCHEMA
    )


def ask(content: Any, *, key: str = KEY, model: Any = Form, **options: Any) -> Any:
    """One answer, read into a class."""
    messages = [{"role": "user", "content": content}]
    return client(key).chat.completions.create(
        model=MODEL,
        messages=messages,
        response_model=model,
        temperature=0,
        max_tokens=48,
        max_retries=1,
        **options,
    )


def image_of_its_own() -> str:
    """instructor's own form of an image, which it turns into OpenAI's."""
    image = instructor.Image.from_path(checks.IMAGE)
    return same(ask([image, checks.NAMING]).label, checks.NAME)


def stream() -> str:
    """A class that fills while the answer comes."""
    partial = list(
        client().chat.completions.create_partial(
            model=MODEL,
            messages=[{"role": "user", "content": about_image(checks.NAMING)}],
            response_model=Form,
            temperature=0,
        )
    )
    return same(partial[-1].label, checks.NAME)


def error_of(told: checks.Refusal) -> Any:
    """The client's error below instructor's own."""
    error: BaseException | None = told.error
    while error is not None and not isinstance(error, openai.APIStatusError):
        error = error.__cause__ or error.__context__
    return error


def overflow() -> str:
    """Tried once and given up, with the reason below."""
    with refused(Exception) as told:
        ask(checks.LONG)
    same(error_of(told).code, "context_length_exceeded")
    return f"{type(told.error).__name__} over context_length_exceeded"


def wrong_key() -> str:
    """A wrong key."""
    with refused(Exception) as told:
        ask(checks.SUM, key="wrong")
    assert isinstance(error_of(told), openai.AuthenticationError), told.error
    return f"{type(told.error).__name__} over AuthenticationError"


check = checks.Checks()
check(
    "text",
    lambda: same(ask(checks.SUM, model=None).choices[0].message.content, checks.SUM_ANSWER),
)
check("image with schema", lambda: same(ask(about_image(checks.NAMING)).label, checks.NAME))
check("image, instructor's form", image_of_its_own)
check("stream", stream)
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
