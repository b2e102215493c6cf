"""Fetches what a conversation names by URL, before anything else looks at it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from gateway.media.images import MediaLimits
from gateway.media.sources import ByteLimit
from gateway.media.videos import VideoLimits
from gateway.request.conversation import (
    Conversation,
    ImagePart,
    Message,
    Part,
    TextPart,
    VideoPart,
)
from protos.wire.errors import ServiceError

P = TypeVar("P", ImagePart, VideoPart)


class Files(Protocol):
    """Where files come from; see `gateway.media.fetch.Fetcher`."""

    async def fetch(self, url: str, *, field: str, limit: ByteLimit) -> bytes:
        """The file behind a URL."""


async def with_files(
    conversation: Conversation,
    files: Files,
    *,
    limits: MediaLimits,
    video_limits: VideoLimits,
    hold: Callable[[int], None],
) -> Conversation:
    """The conversation with the file of every image and video in it, all fetched at the same time.

    The first that cannot be fetched ends the others.

    Args:
        conversation: As the client sent it.
        files: Where files come from.
        limits: Images and bytes of one request; their number is checked before anything is
            fetched.
        video_limits: The same of videos.
        hold: Called with the bytes of each fetched file; raises where there is no room for them.

    Raises:
        ServiceError: a URL is not followed, a file cannot be fetched or is too large.
    """
    images, videos = _parts(conversation, ImagePart), _parts(conversation, VideoPart)
    named = {field: part for field, part in (images | videos).items() if part.url is not None}
    if not named:
        return conversation
    limits.check_count(len(images))
    video_limits.check_count(len(videos))
    total = sum(len(part.data) for part in images.values())
    fetched: dict[str, bytes] = {}

    async def fetch(field: str, part: ImagePart | VideoPart) -> None:
        nonlocal total
        is_image = isinstance(part, ImagePart)
        limit = limits.file if is_image else video_limits.file
        data = await files.fetch(part.url or "", field=field, limit=limit)
        if is_image:
            total += len(data)
            limits.check_total(total)
        hold(len(data))
        fetched[field] = data

    try:
        async with asyncio.TaskGroup() as group:
            for field, part in named.items():
                group.create_task(fetch(field, part))
    except* ServiceError as errors:
        raise errors.exceptions[0] from None
    messages = tuple(
        _filled(message, f"messages[{at}]", fetched)
        for at, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=messages)


def names_files(conversation: Conversation) -> bool:
    """Whether an image or video is somewhere else, by a URL."""
    return any(
        not isinstance(part, TextPart) and part.url is not None
        for message in conversation.messages
        if not isinstance(message.content, str)
        for part in message.content or ()
    )


def _parts(conversation: Conversation, kind: type[P]) -> dict[str, P]:
    """Every part of one kind by its place in the request."""
    return {
        f"messages[{at}].content[{index}]": part
        for at, message in enumerate(conversation.messages)
        if not isinstance(message.content, str)
        for index, part in enumerate(message.content or ())
        if isinstance(part, kind)
    }


def _filled(message: Message, field: str, fetched: dict[str, bytes]) -> Message:
    if message.content is None or isinstance(message.content, str):
        return message
    parts = tuple(
        _with_file(part, fetched.get(f"{field}.content[{index}]"))
        for index, part in enumerate(message.content)
    )
    return replace(message, content=parts)


def _with_file(part: Part, file: bytes | None) -> Part:
    if file is None:
        return part
    if isinstance(part, ImagePart):
        return replace(part, data=file)
    return replace(part, file=file) if isinstance(part, VideoPart) else part
