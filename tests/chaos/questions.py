"""What the client asks: questions about images with known answers, and long streams of text.

A greedy answer, and a sampled one with a seed, is the same whenever it is asked for, whoever
computes it. So what comes under faults can be compared with what came before them.
"""

from dataclasses import dataclass
from typing import Any

from tests.demo_model.held_out import question
from tests.demo_model.served import data_url

# Skills whose answer cannot be known without the image.
SKILLS = ("color", "count", "read", "shape")
OF_EACH_SKILL = 10
STREAMS = 24
STREAM_TOKENS = 160
ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request, whose answer is the same each time.

    Attributes:
        name: Unique.
        kind: "image" or "text".
        body: Of POST /v1/chat/completions.
        expected: The right answer, where there is one.
    """

    name: str
    kind: str
    body: dict[str, Any]
    expected: str | None = None


def image_questions() -> list[Question]:
    """Held-out questions about one image each, answered whole."""
    return [_about_image(skill, number) for skill in SKILLS for number in range(OF_EACH_SKILL)]


def text_questions() -> list[Question]:
    """Streams of so many tokens; every second one is sampled."""
    return [_stream(number) for number in range(STREAMS)]


def _about_image(skill: str, number: int) -> Question:
    asked = question(skill, number)
    image = {"type": "image_url", "image_url": {"url": data_url(asked.pictures[0])}}
    content = [image, {"type": "text", "text": asked.turns[0].question}]
    body = {
        "messages": [{"role": "user", "content": content}],
        "temperature": 0,
        "max_tokens": ANSWER_TOKENS,
    }
    return Question(
        name=f"{skill} {number}", kind="image", body=body, expected=asked.turns[0].answer
    )


def _stream(number: int) -> Question:
    sampling = {"temperature": 0.8, "seed": number} if number % 2 else {"temperature": 0}
    body = {
        "messages": [{"role": "user", "content": question("talk", number).turns[0].question}],
        "max_tokens": STREAM_TOKENS,
        "ignore_eos": True,
        "stream": True,
        **sampling,
    }
    return Question(name=f"stream {number}", kind="text", body=body)
