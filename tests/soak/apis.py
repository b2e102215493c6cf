"""One question in the words of each API, and the answer out of theirs."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]
TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with what it is about.

    Attributes:
        name: Unique; a greedy answer to it is always the same.
        text: The question.
        images: PNG files.
        video: A part of a message that shows a video, for the chat API alone.
        expected: The right answer, where it is known.
        follow_up: What is asked next, where something is.
    """

    name: str
    text: str
    images: tuple[bytes, ...] = ()
    video: Body | None = None
    expected: str | None = None
    follow_up: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """How an API is spoken.

    Attributes:
        path: Of its route.
        body: The request of a question, without `stream`.
        text: What a whole answer says.
        piece: What a line of a streamed answer says.
        done: What a stream that ended well has as its last line, or in it.
    """

    path: str
    body: Callable[[Asked], Body]
    text: Callable[[Any], str]
    piece: Callable[[str], str]
    done: str


def data_url(png: bytes) -> str:
    """A PNG inside a URL."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def chat_content(asked: Asked) -> list[Body]:
    """The parts of a message of the chat API."""
    parts: list[Body] = [
        {"type": "image_url", "image_url": {"url": data_url(png)}} for png in asked.images
    ]
    if asked.video is not None:
        parts.append(asked.video)
    return [*parts, {"type": "text", "text": asked.text}]


def _chat(asked: Asked) -> Body:
    messages = [{"role": "user", "content": chat_content(asked)}]
    return {"messages": messages, "temperature": 0, "max_tokens": TOKENS}


def _responses(asked: Asked) -> Body:
    parts: list[Body] = [
        {"type": "input_image", "image_url": data_url(png), "detail": "auto"}
        for png in asked.images
    ]
    content = [*parts, {"type": "input_text", "text": asked.text}]
    asks = [{"role": "user", "content": content}]
    return {"input": asks, "temperature": 0, "max_output_tokens": TOKENS}


def _messages(asked: Asked) -> Body:
    parts: list[Body] = [
        {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": base64.b64encode(png).decode(),
            },
        }
        for png in asked.images
    ]
    content = [*parts, {"type": "text", "text": asked.text}]
    messages = [{"role": "user", "content": content}]
    return {"messages": messages, "temperature": 0, "max_tokens": TOKENS}


def _ollama(asked: Asked) -> Body:
    images = [base64.b64encode(png).decode() for png in asked.images]
    message = {"role": "user", "content": asked.text, **({"images": images} if images else {})}
    return {"messages": [message], "options": {"temperature": 0, "num_predict": TOKENS}}


def _event(line: str) -> Any:
    return json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}


def _chat_piece(line: str) -> str:
    choices = _event(line).get("choices") or [{}]
    return (choices[0].get("delta") or {}).get("content") or ""


def _responses_piece(line: str) -> str:
    event = _event(line)
    return str(event["delta"]) if event.get("type") == "response.output_text.delta" else ""


def _messages_piece(line: str) -> str:
    event = _event(line)
    delta = event.get("delta") or {} if event.get("type") == "content_block_delta" else {}
    return delta.get("text") or ""


APIS: Mapping[str, Api] = {
    "chat": Api(
        path="/v1/chat/completions",
        body=_chat,
        text=lambda answer: answer["choices"][0]["message"]["content"],
        piece=_chat_piece,
        done="data: [DONE]",
    ),
    "responses": Api(
        path="/v1/responses",
        body=_responses,
        text=lambda answer: answer["output"][-1]["content"][0]["text"],
        piece=_responses_piece,
        done="response.completed",
    ),
    "messages": Api(
        path="/v1/messages",
        body=_messages,
        text=lambda answer: answer["content"][0]["text"],
        piece=_messages_piece,
        done="message_stop",
    ),
    "ollama": Api(
        path="/api/chat",
        body=_ollama,
        text=lambda answer: answer["message"]["content"],
        piece=lambda line: json.loads(line)["message"]["content"] or "" if line else "",
        done='"done":true',
    ),
}
