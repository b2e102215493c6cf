"""pydantic-ai: https://github.com/pydantic/pydantic-ai."""

import asyncio
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients import checks
from tests.clients.checks import IMAGE, KEY, MODEL, URL, refused, same


class Form(BaseModel):
    """What is asked for."""

    label: Literal["red circle", "blue circle", "red square", "blue square"]


def agent(output: Any = str, key: str = KEY) -> Any:
    """An agent without instructions."""
    model = OpenAIChatModel(
        MODEL,
        provider=OpenAIProvider(base_url=URL, api_key=key),
        profile=OpenAIModelProfile(supports_json_schema_output=True),
    )
    return Agent(model, output_type=output, model_settings={"temperature": 0, "max_tokens": 48})


def about_image(question: str) -> list[Any]:
    """The image, then a question about it."""
    return [BinaryContent(data=IMAGE.read_bytes(), media_type="image/png"), question]


async def stream() -> str:
    """Pieces."""
    async with agent().run_stream(about_image(checks.COLOR)) as answer:
        pieces = [piece async for piece in answer.stream_text(delta=True)]
    return same("".join(pieces), checks.COLOR_ANSWER)


def overflow() -> str:
    """The status and the body are handed on."""
    with refused(ModelHTTPError) as told:
        agent().run_sync(checks.LONG)
    error: Any = told.error
    same(error.body["code"], "context_length_exceeded")
    return f"ModelHTTPError {error.status_code}, code {error.body['code']}"


def wrong_key() -> str:
    """A wrong key."""
    with refused(ModelHTTPError) as told:
        agent(key="wrong").run_sync(checks.SUM)
    error: Any = told.error
    same(error.status_code, 401)
    return "ModelHTTPError 401"


check = checks.Checks()
check("text", lambda: same(agent().run_sync(checks.SUM).output, checks.SUM_ANSWER))
check(
    "image", lambda: same(agent().run_sync(about_image(checks.COLOR)).output, checks.COLOR_ANSWER)
)
check("stream", lambda: asyncio.run(stream()))
check(
    "schema",
    lambda: same(
        agent(NativeOutput(Form)).run_sync(about_image(checks.NAMING)).output.label, checks.NAME
    ),
)
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
