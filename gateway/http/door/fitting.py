"""Conversations that may lose their beginning where they are too long."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from gateway.answer.events import AnswerEvent
from gateway.http.door.places import Names, renamed
from gateway.request.conversation import Conversation, Role
from gateway.request.job import Question
from gateway.service import OpenRequest
from protos.wire.errors import PromptTooLong, ServiceError

T = TypeVar("T")


async def fitting(
    opened: OpenRequest, question: Question, names: Names
) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
    """The events of an answer to as much of a conversation's end as fits the context window.

    An eighth of the turns is left out at a time, at least one, so that a long conversation takes
    few tries and loses little more than it must.

    Raises:
        ServiceError: in the client's words; PromptTooLong, not even the last turn fits.
    """
    while True:
        try:
            async with aclosing(opened.answer(question)) as events:
                async for event in events:
                    yield event
            return
        except PromptTooLong as error:
            kept = without_first_turns(question.conversation)
            if len(kept) == len(question.conversation.messages):
                raise renamed(error, names) from error
        except ServiceError as error:
            raise renamed(error, names) from error
        question, names = _cut(question, kept), replace(names, places=_chosen(names.places, kept))


def without_first_turns(conversation: Conversation) -> list[int]:
    """Which messages stay where a conversation loses an eighth of its turns, but never the last.

    A turn begins with a message of the user, so that no result of a tool loses its call.
    Instructions stay.
    """
    roles = [message.role for message in conversation.messages]
    head = next((at for at, role in enumerate(roles) if role is not Role.SYSTEM), len(roles))
    begins = [at for at, role in enumerate(roles) if role is Role.USER and at > head]
    if not begins:
        return list(range(len(roles)))
    return [*range(head), *range(begins[len(begins) // 8], len(roles))]


def _cut(question: Question, kept: Sequence[int]) -> Question:
    messages = _chosen(question.conversation.messages, kept)
    return replace(question, conversation=replace(question.conversation, messages=messages))


def _chosen(values: Sequence[T], kept: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[at] for at in kept)
