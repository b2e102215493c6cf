"""LlamaIndex's OpenAILike: https://github.com/run-llama/llama_index."""

from typing import Any, Literal

import openai
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.clients import checks
from tests.clients.checks import IMAGE, KEY, MODEL, URL, refused, same


class Form(BaseModel):
    """What is asked for."""

    label: Literal["red circle", "blue circle", "red square", "blue square"]


def model(key: str = KEY) -> Any:
    """The model."""
    return OpenAILike(
        model=MODEL,
        api_base=URL,
        api_key=key,
        temperature=0,
        max_tokens=48,
        is_chat_model=True,
        should_use_structured_outputs=True,
        max_retries=0,
    )


def about_image(question: str) -> list[ChatMessage]:
    """The image, then a question about it."""
    image = ImageBlock(image=IMAGE.read_bytes(), image_mimetype="image/png")
    return [ChatMessage(role="user", blocks=[image, TextBlock(text=question)])]


def text(said: str) -> list[ChatMessage]:
    """One turn."""
    return [ChatMessage(role="user", content=said)]


def stream() -> str:
    """Pieces."""
    pieces = list(model().stream_chat(about_image(checks.COLOR)))
    return same("".join(piece.delta for piece in pieces), checks.COLOR_ANSWER)


def schema() -> str:
    """A class as the form of the answer."""
    answer = model().as_structured_llm(Form).chat(about_image(checks.NAMING))
    return same(answer.raw.label, checks.NAME)


def overflow() -> str:
    """LlamaIndex has no error of its own for it."""
    with refused(openai.BadRequestError) as told:
        model().chat(text(checks.LONG))
    error: Any = told.error
    return same(error.code, "context_length_exceeded")


def wrong_key() -> str:
    """A wrong key."""
    with refused(openai.AuthenticationError):
        model("wrong").chat(text(checks.SUM))
    return "AuthenticationError"


check = checks.Checks()
check("text", lambda: same(model().chat(text(checks.SUM)).message.content, checks.SUM_ANSWER))
check(
    "image",
    lambda: same(model().chat(about_image(checks.COLOR)).message.content, checks.COLOR_ANSWER),
)
check("stream", stream)
check("schema", schema)
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
