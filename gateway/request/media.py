"""Fetches what a conversation names by URL, before anything else looks at it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from gateway.media.images import MediaLimits
from gateway.request.conversation import Conversation, ImagePart, Message
from protos.wire.errors import ServiceError


class Files(Protocol):
    """Where files come from; see `gateway.media.fetch.Fetcher`."""

    async def fetch(self, url: str, *, field: str, most: int) -> bytes:
        """The file behind a URL; `most` is the largest, bytes."""


async def with_files(
    conversation: Conversation,
    files: Files,
    *,
    limits: MediaLimits,
    hold: Callable[[int], None],
) -> Conversation:
    """The conversation with every image's file in it, all of them fetched at the same time.

    The first that cannot be fetched ends the others.

    Args:
        conversation: As the client sent it.
        files: Where files come from.
        limits: Images and bytes of one request; their number is checked before anything is
            fetched.
        hold: Called with the bytes of each fetched file; raises where there is no room for them.

    Raises:
        ServiceError: a URL is not followed, a file cannot be fetched or is too large.
    """
    images = _images(conversation)
    named = {field: part.url for field, part in images.items() if part.url is not None}
    if not named:
        return conversation
    limits.check_count(len(images))
    total = sum(len(part.data) for part in images.values())
    fetched: dict[str, bytes] = {}

    async def fetch(field: str, url: str) -> None:
        nonlocal total
        data = await files.fetch(url, field=field, most=limits.max_image_bytes)
        total += len(data)
        limits.check_total(total)
        hold(len(data))
        fetched[field] = data

    try:
        async with asyncio.TaskGroup() as group:
            for field, url in named.items():
                group.create_task(fetch(field, url))
    except* ServiceError as errors:
        raise errors.exceptions[0] from None
    messages = tuple(
        _filled(message, f"messages[{at}]", fetched)
        for at, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=messages)


def _images(conversation: Conversation) -> dict[str, ImagePart]:
    """Every image by its place in the request."""
    return {
        f"messages[{at}].content[{index}]": part
        for at, message in enumerate(conversation.messages)
        if not isinstance(message.content, str)
        for index, part in enumerate(message.content or ())
        if isinstance(part, ImagePart)
    }


def _filled(message: Message, field: str, fetched: dict[str, bytes]) -> Message:
    if message.content is None or isinstance(message.content, str):
        return message
    parts = tuple(
        replace(part, data=fetched[place])
        if isinstance(part, ImagePart) and (place := f"{field}.content[{index}]") in fetched
        else part
        for index, part in enumerate(message.content)
    )
    return replace(message, content=parts)
