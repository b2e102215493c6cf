"""Short work never waits for long work."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.preparing import Prompts
from gateway.prompt.builder import PreparedPrompt
from gateway.prompt.inputs import (
    LIGHT_TEXT_CHARS,
    LIGHT_TEXTS,
    LONG_TEXT_CHARS,
    holds_more_than,
    weight_of,
)
from gateway.prompt.plain import weight_of_plain
from gateway.request.conversation import Conversation, Message, PlainPrompt, Role, ToolCall
from gateway.threads import Threads, Weight
from tests.support.prompts import answer, talk, user

pytestmark = pytest.mark.asyncio

CALL = ToolCall(name="f", arguments={})


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
    parts: dict[str, Any] = {"vision": SimpleNamespace(image_limits=()), "builder": builder}
    with Threads(2) as threads:
        prompts = Prompts(threads=threads, patience=cast(Any, None), **parts)
        long = talk(user("a" * (LONG_TEXT_CHARS + 1)))
        waiting = [asyncio.create_task(prompts.prepare(long)) for _ in range(8)]
        await asyncio.sleep(0)  # all eight are with the threads
        try:
            async with asyncio.timeout(30):
                await prompts.prepare(talk(user("Hello?")))
                await prompts.prepare(talk(user("Hello?"), tools=({"name": "f"},)))
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


async def test_light_work_is_done_at_once_and_other_work_in_a_thread() -> None:
    with Threads(1) as threads:
        places = [await threads.run(threading.current_thread, weight) for weight in Weight]
    assert places[0] is threading.main_thread()
    assert threading.main_thread() not in places[1:]
    assert len(set(places)) == 3


@pytest.mark.parametrize(
    ("conversation", "weight"),
    [
        (talk(user("a" * LIGHT_TEXT_CHARS)), Weight.LIGHT),
        (talk(*[answer("a")] * LIGHT_TEXTS), Weight.LIGHT),
        (talk(Message(role=Role.SYSTEM, content="a"), user("b", "c")), Weight.LIGHT),
        (talk(user("a" * LIGHT_TEXT_CHARS, "b")), Weight.SHORT),
        (talk(user(*"a" * LIGHT_TEXTS), answer("a")), Weight.SHORT),
        (
            talk(*[Message(role=Role.ASSISTANT, content=None)] * LIGHT_TEXTS, user("a")),
            Weight.SHORT,
        ),
        (talk(user("a"), tools=({"b": "c"},)), Weight.SHORT),
        (talk(user(b"an image")), Weight.SHORT),
        (talk(Message(role=Role.USER, content="a", name="b")), Weight.SHORT),
        (talk(Message(role=Role.TOOL, content="a", tool_call_id="b")), Weight.SHORT),
        (talk(Message(role=Role.ASSISTANT, content="a", reasoning="b")), Weight.SHORT),
        (talk(Message(role=Role.ASSISTANT, content="a", tool_calls=(CALL,))), Weight.SHORT),
        (Conversation(messages=(user("a"),), template_options={"b": "c"}), Weight.SHORT),
        (talk(user("a" * (LONG_TEXT_CHARS + 1))), Weight.LONG),
    ],
)
async def test_only_some_short_texts_are_light(conversation: Conversation, weight: Weight) -> None:
    assert weight_of(conversation) is weight


async def test_plain_prompts_weigh_what_they_are_long() -> None:
    weights = {
        LIGHT_TEXT_CHARS: Weight.LIGHT,
        LIGHT_TEXT_CHARS + 1: Weight.SHORT,
        LONG_TEXT_CHARS + 1: Weight.LONG,
    }
    for length, weight in weights.items():
        assert weight_of_plain(PlainPrompt(text="a" * length)) is weight
        assert weight_of_plain(PlainPrompt(ids=(1,) * length)) is weight
