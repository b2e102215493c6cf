"""Fetches what a conversation names by URL, before anything else looks at it, and puts files in."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from gateway.media.images import MediaLimits
from gateway.media.pdfs import PdfLimits
from gateway.media.sources import ByteLimit
from gateway.media.videos import VideoLimits
from gateway.request.conversation import (
    Conversation,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    VideoPart,
)
from gateway.request.files import file_part
from protos.wire.errors import ServiceError

Named = ImagePart | VideoPart | FilePart  # what a client may name by URL
P = TypeVar("P", ImagePart, VideoPart, FilePart)


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
    pdf_limits: PdfLimits,
    hold: Callable[[int], None],
) -> Conversation:
    """The conversation with the file of every image, video and PDF in it, fetched all at once.

    The first that cannot be fetched ends the others.

    Args:
        conversation: As the client sent it.
        files: Where files come from.
        limits: Images and bytes of one request; their number is checked before anything is
            fetched.
        video_limits: The same of videos.
        pdf_limits: The same of PDFs and files of text.
        hold: Called with the bytes of each fetched file; raises where there is no room for them.

    Raises:
        ServiceError: a URL is not followed, a file cannot be fetched or is too large.
    """
    images, videos = parts_of(conversation, ImagePart), parts_of(conversation, VideoPart)
    given: dict[str, Named] = {**images, **videos, **parts_of(conversation, FilePart)}
    named = {field: part for field, part in given.items() if part.url is not None}
    if not named:
        return conversation
    limits.check_count(len(images))
    video_limits.check_count(len(videos))
    total = sum(len(part.data) for part in images.values())
    fetched: dict[str, Part] = {}

    limit_of: dict[type[Named], ByteLimit] = {
        ImagePart: limits.file,
        VideoPart: video_limits.file,
        FilePart: pdf_limits.file,
    }

    async def fetch(field: str, part: Named) -> None:
        nonlocal total
        data = await files.fetch(part.url or "", field=field, limit=limit_of[type(part)])
        if isinstance(part, ImagePart):
            total += len(data)
            limits.check_total(total)
        hold(len(data))
        fetched[field] = _with_file(part, data, field)

    try:
        async with asyncio.TaskGroup() as group:
            for field, part in named.items():
                group.create_task(fetch(field, part))
    except* ServiceError as errors:
        raise errors.exceptions[0] from None
    return with_parts(conversation, fetched)


def with_parts(conversation: Conversation, parts: Mapping[str, Part]) -> Conversation:
    """The conversation with these parts instead of those at their places."""
    messages = tuple(
        _filled(message, f"messages[{at}]", parts)
        for at, message in enumerate(conversation.messages)
    )
    return replace(conversation, messages=messages)


def names_files(conversation: Conversation) -> bool:
    """Whether an image, video or file is somewhere else, by a URL."""
    return any(
        not isinstance(part, TextPart) and part.url is not None
        for message in conversation.messages
        if not isinstance(message.content, str)
        for part in message.content or ()
    )


def parts_of(conversation: Conversation, kind: type[P]) -> dict[str, P]:
    """Every part of one kind by its place in the request."""
    return {
        f"messages[{at}].content[{index}]": part
        for at, message in enumerate(conversation.messages)
        if not isinstance(message.content, str)
        for index, part in enumerate(message.content or ())
        if isinstance(part, kind)
    }


def _filled(message: Message, field: str, found: Mapping[str, Part]) -> Message:
    if message.content is None or isinstance(message.content, str):
        return message
    parts = tuple(
        found.get(f"{field}.content[{index}]", part) for index, part in enumerate(message.content)
    )
    return replace(message, content=parts)


def _with_file(part: Named, data: bytes, field: str) -> Part:
    if isinstance(part, FilePart):
        return file_part(data, name=part.name, sizing=part.sizing, field=field)
    return replace(part, data=data) if isinstance(part, ImagePart) else replace(part, file=data)
