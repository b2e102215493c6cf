"""openai, Python: https://github.com/openai/openai-python."""

import asyncio
from typing import Any, Literal

import openai
from pydantic import BaseModel

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, URL, about_image, refused, same

client = openai.OpenAI(base_url=URL, api_key=KEY)


class Form(BaseModel):
    """What is asked for."""

    label: Literal["red circle", "blue circle", "red square", "blue square"]


def ask(content: Any, **options: Any) -> Any:
    """One answer."""
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, max_tokens=48, **options
    )


def stream() -> str:
    """Pieces, then the usage in a chunk of its own."""
    chunks = list(
        ask(about_image(checks.COLOR), stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    return same(text, checks.COLOR_ANSWER)


def parsed() -> str:
    """The client writes the schema of a class, and reads the answer into it."""
    messages: Any = [{"role": "user", "content": about_image(checks.NAMING)}]
    answer = client.chat.completions.parse(
        model=MODEL, messages=messages, temperature=0, response_format=Form
    )
    form = answer.choices[0].message.parsed
    assert form is not None
    return same(form.label, checks.NAME)


async def asynchronous() -> str:
    """The asynchronous client, several at once."""
    async with openai.AsyncOpenAI(base_url=URL, api_key=KEY) as both:
        asked = [
            both.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": checks.SUM}], temperature=0
            )
            for _ in range(4)
        ]
        answers = await asyncio.gather(*asked)
    return same({answer.choices[0].message.content for answer in answers}, {checks.SUM_ANSWER})


def overflow() -> str:
    """The code that the client's users look at."""
    with refused(openai.BadRequestError) as told:
        ask(checks.LONG)
    error: Any = told.error
    assert error.code == "context_length_exceeded", error.code
    return f"BadRequestError, code {error.code}, param {error.param}"


def wrong_key() -> str:
    """A wrong key."""
    with refused(openai.AuthenticationError):
        openai.OpenAI(base_url=URL, api_key="wrong").models.list()
    return "AuthenticationError"


check = checks.Checks()
check("models", lambda: same([model.id for model in client.models.list()], [MODEL]))
check("text", lambda: same(ask(checks.SUM).choices[0].message.content, checks.SUM_ANSWER))
check(
    "image",
    lambda: same(ask(about_image(checks.COLOR)).choices[0].message.content, checks.COLOR_ANSWER),
)
check("stream", stream)
check("schema", parsed)
check("asynchronous", lambda: asyncio.run(asynchronous()))
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
