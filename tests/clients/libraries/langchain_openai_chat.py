"""LangChain's ChatOpenAI: https://github.com/langchain-ai/langchain."""

from typing import Any

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from tests.clients import checks
from tests.clients.checks import KEY, MODEL, URL, about_image, refused, same


def chat(key: str = KEY) -> ChatOpenAI:
    """The model."""
    return ChatOpenAI(model=MODEL, base_url=URL, api_key=key, temperature=0, max_tokens=48)


def message(content: Any) -> list[Any]:
    """One turn."""
    return [HumanMessage(content=content)]


def stream() -> str:
    """Pieces, and the usage that LangChain adds up of them."""
    whole: Any = None
    for piece in chat().stream(message(about_image(checks.COLOR)), stream_usage=True):
        whole = piece if whole is None else whole + piece
    assert whole.usage_metadata["output_tokens"] > 0
    return same(whole.content, checks.COLOR_ANSWER)


def standard_image() -> str:
    """LangChain's own form of an image, which it turns into OpenAI's."""
    data = checks.image_url().split(",")[1]
    content = [
        {"type": "image", "base64": data, "mime_type": "image/png"},
        {"type": "text", "text": checks.COLOR},
    ]
    return same(chat().invoke(message(content)).content, checks.COLOR_ANSWER)


def schema() -> str:
    """Structured output by OpenAI's response_format."""
    held = {"title": "form", "description": "what is there", **checks.SCHEMA}
    model = chat().with_structured_output(held, method="json_schema")
    return same(model.invoke(message(about_image(checks.NAMING))), {"label": checks.NAME})


def overflow(*, streaming: bool) -> str:
    """The error by which LangChain's middleware shortens a conversation."""
    with refused(ContextOverflowError):
        if streaming:
            list(chat().stream(message(checks.LONG)))
        else:
            chat().invoke(message(checks.LONG))
    return "ContextOverflowError"


def wrong_key() -> str:
    """A wrong key."""
    with refused(openai.AuthenticationError):
        chat("wrong").invoke(message(checks.SUM))
    return "AuthenticationError"


check = checks.Checks()
check("text", lambda: same(chat().invoke(message(checks.SUM)).content, checks.SUM_ANSWER))
check(
    "image",
    lambda: same(chat().invoke(message(about_image(checks.COLOR))).content, checks.COLOR_ANSWER),
)
check("image, LangChain's form", standard_image)
check("stream", stream)
check("schema", schema)
check("context overflow", lambda: overflow(streaming=False))
check("context overflow, stream", lambda: overflow(streaming=True))
check("wrong key", wrong_key)
check.end()
