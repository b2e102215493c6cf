"""The demonstration model's skills with videos, through the three services, as any client asks."""

import base64
from collections.abc import Iterator

import httpx
import pytest

from tests.demo_model.evaluation import LONGEST_ANSWER, is_right
from tests.demo_model.held_out import Question, question
from tests.demo_model.served import Served
from tests.support.bundles import demo_bundle
from tests.support.stack import ServedStack, Stacks
from tests.support.videos import video_file

COUNT = 4  # questions of each skill
LEAST = 0.75  # of them answered right; the checkpoint itself answers 99 %


@pytest.fixture(scope="module")
def served(stacks: Stacks) -> ServedStack:
    return stacks.get(demo_bundle("int4"), ray=False)


@pytest.fixture(scope="module")
def client(served: ServedStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.stack.http_url, timeout=60.0) as opened:
        yield opened


def share(right: list[bool]) -> float:
    return sum(right) / len(right)


@pytest.mark.parametrize("skill", ["direction", "appear"])
def test_videos_as_frames_with_times_are_understood(served: ServedStack, skill: str) -> None:
    asked = [question(skill, number) for number in range(COUNT)]
    answers = Served(served.stack.http_url, LONGEST_ANSWER).answer(asked)
    right = [is_right(q.turns[-1].answer, said) for q, said in zip(asked, answers, strict=True)]
    assert share(right) >= LEAST


@pytest.mark.parametrize("skill", ["direction", "appear"])
def test_videos_as_files_are_understood(client: httpx.Client, skill: str) -> None:
    asked = [question(skill, number) for number in range(COUNT)]
    assert share([is_right(q.turns[-1].answer, by_file(client, q)) for q in asked]) >= LEAST


def by_file(client: httpx.Client, asked: Question) -> str:
    """The answer about a file that shows each frame at its time."""
    assert asked.video is not None and asked.clock is not None
    places = sorted(set(asked.clock.indices))  # an odd last frame is repeated by the services
    file = video_file(
        list(asked.video[: len(places)]),
        times=[place / asked.clock.rate for place in places],
        options={"crf": "8"},
    )
    url = f"data:video/mp4;base64,{base64.b64encode(file).decode()}"
    video = {"type": "video_url", "video_url": {"url": url}, "nframes": len(places)}
    text = {"type": "text", "text": asked.turns[0].question}
    body = {
        "messages": [{"role": "user", "content": [video, text]}],
        "temperature": 0,
        "max_tokens": LONGEST_ANSWER,
    }
    answer = client.post("/chat/completions", json=body).json()
    said: str = answer["choices"][0]["message"]["content"]
    return said
