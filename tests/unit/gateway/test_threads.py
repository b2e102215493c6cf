"""Short work never waits for long work."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.pipeline import LONG_TEXT_CHARS, Pipeline
from gateway.prompt.builder import PreparedPrompt
from gateway.prompt.inputs import holds_more_than
from gateway.request.conversation import Conversation, Message, Role, ToolCall
from gateway.threads import Threads
from tests.support.prompts import answer, talk, user

pytestmark = pytest.mark.asyncio


class SlowBuilder:
    """Prepares long conversations only when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()

    def prepare(
        self,
        conversation: Conversation,
        *,
        max_context: int | None,
        tiers: object = (),
        sampled: object = (),
    ) -> PreparedPrompt:
        if holds_more_than(conversation, 1000):
            assert self.let.wait(timeout=20)
        return cast(PreparedPrompt, conversation)


async def test_a_short_chat_does_not_wait_for_eight_long_ones() -> None:
    builder = SlowBuilder()
    names = ("vocab_size", "token_bytes", "decoder", "patience", "moving", "embeddings", "brought")
    rest = dict.fromkeys((*names, "metrics"), None)
    vision = SimpleNamespace(image_limits=())
    parts: dict[str, Any] = {**rest, "vision": vision, "builder": builder}
    with Threads(2) as threads:
        pipeline = Pipeline(threads=threads, **parts)
        long = talk(user("a" * (LONG_TEXT_CHARS + 1)))
        waiting = [asyncio.create_task(pipeline.prepare(long)) for _ in range(8)]
        await asyncio.sleep(0)  # all eight are with the threads
        try:
            async with asyncio.timeout(30):
                await pipeline.prepare(talk(user("Hello?")))
            assert not any(task.done() for task in waiting)
        finally:
            builder.let.set()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    "conversation",
    [
        talk(user("abc", "defg")),
        talk(Message(role=Role.SYSTEM, content="abcdefg")),
        talk(answer("abc"), Message(role=Role.ASSISTANT, content=None, reasoning="defg")),
        talk(
            Message(
                role=Role.ASSISTANT,
                content=None,
                tool_calls=(ToolCall(name="f", arguments={"abc": ["defg"]}),),
            )
        ),
        talk(user("abc"), tools=({"de": "fg"},)),
    ],
)
async def test_every_string_counts(conversation: Conversation) -> None:
    assert holds_more_than(conversation, 6)
    assert not holds_more_than(conversation, 7)
