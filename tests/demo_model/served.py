"""Asks a served model the held-out questions, as any client would."""

import base64
import io
import json
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from tests.demo_model.drawing import Pixels
from tests.demo_model.held_out import Question

AT_ONCE = 4
PATIENCE_S = 120.0
Message = dict[str, Any]


class Served:
    """A server that speaks OpenAI's protocol."""

    def __init__(self, url: str, longest_answer: int) -> None:
        """`url` ends in `/v1`; `longest_answer` is in tokens."""
        self.url = url.rstrip("/")
        self.longest_answer = longest_answer

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answers to the last turns, after its own answers to the turns before."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.converse, questions))

    def converse(self, asked: Question) -> str:
        """All turns of one question; the last answer."""
        content: list[Message] = [
            {"type": "image_url", "image_url": {"url": data_url(picture)}}
            for picture in asked.pictures
        ]
        if asked.video is not None and asked.clock is not None:
            frames = [data_url(frame) for frame in asked.video]
            content.append({"type": "video", "video": frames, "timestamps": asked.clock.times})
        content.append({"type": "text", "text": asked.turns[0].question})
        chat: list[Message] = [{"role": "user", "content": content}]
        said = self.complete(chat)
        for turn in asked.turns[1:]:
            chat.append({"role": "assistant", "content": said})
            chat.append({"role": "user", "content": turn.question})
            said = self.complete(chat)
        return said

    def complete(self, chat: Sequence[Message]) -> str:
        """One greedy answer."""
        body = {
            "messages": chat,
            "temperature": 0,
            "max_tokens": self.longest_answer,
        }
        request = urllib.request.Request(
            f"{self.url}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            answer = json.load(response)
        text: str = answer["choices"][0]["message"]["content"]
        return text


def data_url(picture: Pixels) -> str:
    """A picture as a PNG inside a URL, without any loss."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
