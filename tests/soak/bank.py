"""What is asked: the demonstration model's held-out questions, drawn once and kept.

A process that draws while it asks would be busier than what it asks.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.demo_model.held_out import Question, question
from tests.demo_model.served import data_url
from tests.soak.apis import Asked, Body
from tests.support.prompts import png
from tests.support.videos import moving, video_file

SKILLS = ("color", "count", "read", "shape", "spatial", "yes_no")
OF_EACH_SKILL = 6
TALKS, FOLLOW_UPS, PAIRS, VIDEOS = 12, 8, 4, 3
LARGE = 40  # images that keep the tower at work for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """Questions by what they are about; `large` are PNG files, `file` a part with an MP4 file."""

    texts: tuple[Asked, ...]
    images: tuple[Asked, ...]
    follow_ups: tuple[Asked, ...]
    videos: tuple[Asked, ...]
    large: tuple[bytes, ...]
    file: Body

    @classmethod
    def drawn(cls, *, large: int = LARGE) -> "Bank":
        """All of it, with so many large images."""
        seen = [(skill, number) for skill in SKILLS for number in range(OF_EACH_SKILL)]
        seen += [("compare", number) for number in range(PAIRS)]
        moved = [(skill, number) for skill in ("direction", "appear") for number in range(VIDEOS)]
        return cls(
            texts=tuple(_asked("talk", number) for number in range(TALKS)),
            images=tuple(_asked(skill, number) for skill, number in seen),
            follow_ups=tuple(_asked("follow_up", number) for number in range(FOLLOW_UPS)),
            videos=tuple(_asked(skill, number) for skill, number in moved),
            large=tuple(_large(number) for number in range(large)),
            file=_file(),
        )


def _asked(skill: str, number: int) -> Asked:
    drawn = question(skill, number)
    turns = drawn.turns
    return Asked(
        name=f"{skill} {number}",
        text=turns[0].question,
        images=tuple(base64.b64decode(data_url(each).partition(",")[2]) for each in drawn.pictures),
        video=_frames(drawn),
        expected=turns[0].answer if len(turns) == 1 else None,
        follow_up=turns[1].question if len(turns) > 1 else None,
    )


def _frames(drawn: Question) -> Body | None:
    if drawn.video is None or drawn.clock is None:
        return None
    frames = [data_url(frame) for frame in drawn.video]
    return {"type": "video", "video": frames, "timestamps": drawn.clock.times}


def _large(number: int) -> bytes:
    shades = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(shades).resize((1280, 960)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _file() -> Body:
    file = video_file(moving(24, 96, 64), rate=8)
    url = "data:video/mp4;base64," + base64.b64encode(file).decode()
    return {"type": "video_url", "video_url": {"url": url, "fps": 2}}


SMALL_PNG = png(64, 64)
