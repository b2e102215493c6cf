"""Conversations of the parity tests, in the wire's form and in transformers'."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from protos.tandem.v1 import gateway_pb2

ROLES = {
    "system": gateway_pb2.ROLE_SYSTEM,
    "user": gateway_pb2.ROLE_USER,
    "assistant": gateway_pb2.ROLE_ASSISTANT,
    "tool": gateway_pb2.ROLE_TOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnImage:
    """An image of coloured noise, the same for the same size and seed."""

    width: int
    height: int
    seed: int = 0

    def pixels(self) -> Image.Image:
        """The image itself, RGB."""
        rng = np.random.default_rng((self.seed, self.width, self.height))
        shape = (self.height, self.width, 3)
        return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))

    def encoded(self) -> bytes:
        """A PNG file."""
        stream = io.BytesIO()
        self.pixels().save(stream, "PNG", compress_level=1)
        return stream.getvalue()


Part = str | DrawnImage


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    parts: tuple[Part, ...]
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A conversation with a name."""

    name: str
    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    def images(self) -> list[Image.Image]:
        """All images in prompt order."""
        parts = (part for turn in self.turns for part in turn.parts)
        return [part.pixels() for part in parts if isinstance(part, DrawnImage)]

    def to_transformers(self) -> list[dict[str, Any]]:
        """Messages for the processor's chat template."""
        return [_to_transformers(turn) for turn in self.turns]

    def to_proto(self) -> list[gateway_pb2.ChatMessage]:
        """Messages for ChatService."""
        return [_to_proto(turn) for turn in self.turns]

    def tools_json(self) -> list[str]:
        """Tools for ChatService."""
        return [json.dumps(tool) for tool in self.tools]


def _to_transformers(turn: Turn) -> dict[str, Any]:
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in turn.parts
    ]
    message: dict[str, Any] = {"role": turn.role, "content": content}
    if turn.tool_calls:
        message["tool_calls"] = list(turn.tool_calls)
    return message


def _to_proto(turn: Turn) -> gateway_pb2.ChatMessage:
    content = [
        gateway_pb2.ContentPart(text=part)
        if isinstance(part, str)
        else gateway_pb2.ContentPart(image=part.encoded())
        for part in turn.parts
    ]
    calls = [
        json.dumps({**call, "function": {**call["function"], "arguments": json.dumps(arguments)}})
        for call in turn.tool_calls
        for arguments in [call["function"]["arguments"]]
    ]
    return gateway_pb2.ChatMessage(role=ROLES[turn.role], content=content, tool_calls_json=calls)


ZOOM_TOOL = {
    "type": "function",
    "function": {
        "name": "zoom",
        "description": "Shows a part of the image.",
        "parameters": {"type": "object", "properties": {"corner": {"type": "string"}}},
    },
}
ZOOM_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "zoom", "arguments": {"corner": "top left"}},
}

TEXT_ONLY = Talk(
    name="text only",
    turns=(
        Turn("system", ("Answer briefly.",)),
        Turn("user", ("How many legs has a spider, and why? Größe: 1½, 東京.",)),
    ),
)
ONE_IMAGE = Talk(
    name="one image",
    turns=(Turn("user", (DrawnImage(width=120, height=90), "What do you see?")),),
)
FIVE_IMAGES = Talk(
    name="five images of unlike sizes between text",
    turns=(
        Turn(
            "user",
            (
                "First",
                DrawnImage(width=64, height=64),
                "then a wide one",
                DrawnImage(width=200, height=60, seed=1),
                DrawnImage(width=50, height=130, seed=2),
                "two in a row, and",
                DrawnImage(width=97, height=33, seed=3),
                "last",
                DrawnImage(width=64, height=64, seed=4),
                "Which is the odd one out?",
            ),
        ),
    ),
)
SEVERAL_TURNS = Talk(
    name="images in several turns",
    turns=(
        Turn("user", (DrawnImage(width=80, height=60, seed=5), "And this?")),
        Turn("assistant", ("Noise.",)),
        Turn("user", ("Compare with", DrawnImage(width=60, height=110, seed=6), ".")),
        Turn("assistant", ("Taller noise.",)),
        Turn("user", ("Sure?",)),
    ),
)
TOOL_IMAGE = Talk(
    name="tool message with an image",
    turns=(
        Turn("user", (DrawnImage(width=100, height=70, seed=7), "What is in the corner?")),
        Turn("assistant", ("Let me look.",), (ZOOM_CALL,)),
        Turn("tool", ("The corner:", DrawnImage(width=48, height=48, seed=8))),
    ),
    tools=(ZOOM_TOOL,),
)
EXTREME_ASPECT = Talk(
    name="extreme aspect ratios",
    turns=(
        Turn(
            "user",
            (
                DrawnImage(width=1480, height=8, seed=9),
                DrawnImage(width=9, height=700, seed=10),
                "Which is longer?",
            ),
        ),
    ),
)


ROUNDING_TIES = "rounding ties"


def rounding_ties(checkpoint: Path) -> Talk:
    """Images whose sides lie exactly between two multiples of the resizing factor.

    Python rounds halves to even, so one side goes down and the other up. The sizes stay within
    the checkpoint's areas, where nothing else decides.
    """
    settings = json.loads((checkpoint / "preprocessor_config.json").read_text())
    factor = settings["patch_size"] * settings["merge_size"]
    least, most = settings["size"]["shortest_edge"], settings["size"]["longest_edge"]
    sides = [(2 * n + 1) * factor // 2 for n in range(1, 12)]
    fitting = [
        (width, height)
        for width in sides
        for height in sides
        if _down(width, factor) * _down(height, factor) >= least
        and (width + factor) * (height + factor) <= most
        and (width // factor) % 2 != (height // factor) % 2
    ]
    first, second = fitting[0], fitting[-1]
    images = (
        DrawnImage(width=first[0], height=first[1], seed=11),
        DrawnImage(width=second[1], height=second[0], seed=12),
    )
    return Talk(name=ROUNDING_TIES, turns=(Turn("user", (*images, "Same size?")),))


def _down(side: int, factor: int) -> int:
    return side // factor * factor


def talks(checkpoint: Path) -> list[Talk]:
    """Every conversation the proof covers; their names are `TALK_NAMES`."""
    return [
        TEXT_ONLY,
        ONE_IMAGE,
        FIVE_IMAGES,
        SEVERAL_TURNS,
        TOOL_IMAGE,
        EXTREME_ASPECT,
        rounding_ties(checkpoint),
    ]


TALK_NAMES = (
    TEXT_ONLY.name,
    ONE_IMAGE.name,
    FIVE_IMAGES.name,
    SEVERAL_TURNS.name,
    TOOL_IMAGE.name,
    EXTREME_ASPECT.name,
    ROUNDING_TIES,
)
