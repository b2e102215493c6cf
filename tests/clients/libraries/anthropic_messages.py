"""Anthropic's client: https://github.com/anthropics/anthropic-sdk-python."""

import base64
import json
from typing import Any

import anthropic

from tests.clients import checks
from tests.clients.checks import IMAGE, KEY, MODEL, ORIGIN, refused, same

client = anthropic.Anthropic(base_url=ORIGIN, api_key=KEY, max_retries=0)
TOOL: dict[str, Any] = {"name": "label", "input_schema": checks.SCHEMA}


def about_image(question: str) -> list[dict[str, Any]]:
    """Content of a user's turn: the image, then a question about it."""
    data = base64.b64encode(IMAGE.read_bytes()).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return [{"type": "image", "source": source}, {"type": "text", "text": question}]


def ask(content: Any, **options: Any) -> Any:
    """One answer."""
    return client.messages.create(**request(content), **options)


def request(content: Any) -> dict[str, Any]:
    """What every question has."""
    messages = [{"role": "user", "content": content}]
    # The newest client has no argument for the temperature, which earlier ones sent so.
    greedy = {"temperature": 0}
    return {"model": MODEL, "messages": messages, "max_tokens": 48, "extra_body": greedy}


def text_of(message: Any) -> str:
    """What was said."""
    return "".join(block.text for block in message.content if block.type == "text")


def stream() -> str:
    """Pieces of an answer, and the message that the client builds of them."""
    with client.messages.stream(**request(about_image(checks.COLOR))) as pieces:
        said = "".join(pieces.text_stream)
        final = pieces.get_final_message()
    assert final.usage.output_tokens > 0 and final.stop_reason == "end_turn"
    return same(said, text_of(final))


def tool() -> str:
    """A tool that must be called, with an input of its schema."""
    answer = ask(
        about_image(checks.NAMING), tools=[TOOL], tool_choice={"type": "tool", "name": "label"}
    )
    (call,) = (block for block in answer.content if block.type == "tool_use")
    assert call.input["label"] in checks.NAMES, call.input
    return same(answer.stop_reason, "tool_use") + " " + json.dumps(call.input)


def counted() -> str:
    """The prompt's tokens, before and with the answer."""
    content = about_image(checks.COLOR)
    messages: Any = [{"role": "user", "content": content}]
    counted = client.messages.count_tokens(model=MODEL, messages=messages)
    usage = ask(content).usage
    read = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    return same(counted.input_tokens, read)


def overflow() -> str:
    """A prompt that is too long."""
    with refused(anthropic.BadRequestError) as told:
        ask(checks.LONG)
    return str(told.error)


def wrong_key() -> str:
    """A wrong key."""
    with refused(anthropic.AuthenticationError):
        anthropic.Anthropic(base_url=ORIGIN, api_key="wrong").messages.create(**request(checks.SUM))
    return "AuthenticationError"


check = checks.Checks()
check("text", lambda: same(text_of(ask(checks.SUM)), checks.SUM_ANSWER))
check("image", lambda: same(text_of(ask(about_image(checks.COLOR))), checks.COLOR_ANSWER))
check("stream", stream)
check("tool", tool)
check("token count", counted)
check("context overflow", overflow)
check("wrong key", wrong_key)
check.end()
