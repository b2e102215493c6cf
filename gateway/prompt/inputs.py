"""What a conversation holds, read once: its strings, its images, and how much of everything."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from gateway.media.images import ImageSource, MediaLimits
from gateway.media.pdfs import PdfLimits
from gateway.media.videos import VideoLimits, VideoSource
from gateway.prompt.options import texts_of
from gateway.prompt.provenance import strings_in
from gateway.request.conversation import (
    Conversation,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    VideoPart,
    shown,
)
from gateway.threads import Weight
from protos.wire.errors import InvalidRequest, Reason

# Of one tool schema, or the arguments of one call.
MAX_TOOL_DEPTH = 32
MAX_TOOL_VALUES = 20_000

# Texts of which more are prepared in the lane for long work; tokenized in some 50 ms.
LONG_TEXT_CHARS = 64 * 1024
# Texts of no more, so many characters in so many pieces, are prepared in 1 to 3 ms.
LIGHT_TEXT_CHARS = 2048
LIGHT_TEXTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLimits:
    """What one request may ask of the prompt builder."""

    media: MediaLimits = MediaLimits()
    videos: VideoLimits = VideoLimits()
    pdfs: PdfLimits = PdfLimits()
    max_text_bytes: int = 2 * 1024 * 1024  # UTF-8, all strings of a conversation together
    max_messages: int = 2048
    max_parts: int = 4096  # of all messages together
    max_tools: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptInputs:
    """A conversation and what is in it, each in the conversation's order.

    Attributes:
        conversation: As the client sent it.
        texts: The client's strings that every template writes.
        other_texts: Its strings that a template may write besides: tool schemas, names, ids.
        images: Field, file and wanted size of each image.
        videos: Field, file or frames, and wanted size of each video.
        tool_data: Field and JSON data of each tool schema and of the arguments of each call.
        part_count: Parts of all messages.
    """

    conversation: Conversation
    texts: tuple[str, ...]
    other_texts: tuple[str, ...]
    images: tuple[ImageSource, ...]
    videos: tuple[VideoSource, ...]
    tool_data: tuple[tuple[str, Any], ...]
    part_count: int

    @classmethod
    def of(cls, conversation: Conversation) -> Self:
        """Reads a conversation; nothing is checked."""
        reading = _Reading()
        for index, tool in enumerate(conversation.tools):
            reading.tool_data.append((f"tools[{index}]", tool))
            reading.other_texts.extend(strings_in(tool))
        reading.other_texts.extend(texts_of(conversation.template_options))
        for turn, message in enumerate(conversation.messages):
            reading.message(message, f"messages[{turn}]")
        return cls(
            conversation=conversation,
            texts=tuple(reading.texts),
            other_texts=tuple(reading.other_texts),
            images=tuple(reading.images),
            videos=tuple(reading.videos),
            tool_data=tuple(reading.tool_data),
            part_count=reading.part_count,
        )

    def check(self, limits: PromptLimits) -> None:
        """Checks counts and depths, before anything is rendered.

        Raises:
            InvalidRequest: no message, too many messages, parts or tools, data nested too deep, or
                neither text nor an image or video anywhere.
        """
        _check_count("messages", len(self.conversation.messages), 1, limits.max_messages)
        _check_count("tools", len(self.conversation.tools), 0, limits.max_tools)
        if self.part_count > limits.max_parts:
            raise InvalidRequest(
                f"messages have {self.part_count} content parts, expected at most"
                f" {limits.max_parts}",
                param="messages",
            )
        for field, value in self.tool_data:
            _check_json(field, value)
        if not (self.images or self.videos) and not any(text.strip() for text in self.texts):
            raise InvalidRequest("messages hold neither text nor images", param="messages")


def check_text_size(texts: Iterable[str], most: int, *, field: str) -> None:
    """Checks that a request's texts are Unicode of at most so many bytes of UTF-8.

    Raises:
        InvalidRequest: REQUEST_TOO_LARGE, or a lone surrogate.
    """
    try:
        size = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} holds a text that is not valid Unicode (a lone surrogate)", param=field
        ) from error
    if size > most:
        raise InvalidRequest(
            f"{field} holds {size} bytes of text, expected at most {most}",
            reason=Reason.REQUEST_TOO_LARGE,
            param=field,
        )


def weight_of(conversation: Conversation) -> Weight:
    """How long a conversation takes to prepare, by its length: cheap enough for the event loop."""
    if _is_light(conversation):
        return Weight.LIGHT
    return Weight.LONG if holds_more_than(conversation, LONG_TEXT_CHARS) else Weight.SHORT


def _is_light(conversation: Conversation) -> bool:
    """Whether it is a few short texts and nothing else."""
    messages = conversation.messages
    if len(messages) > LIGHT_TEXTS or conversation.tools or conversation.template_options:
        return False
    left, texts = LIGHT_TEXT_CHARS, LIGHT_TEXTS
    for message in messages:
        if message.tool_calls or message.reasoning or message.name or message.tool_call_id:
            return False
        content = message.content or ()
        for part in [content] if isinstance(content, str) else content:
            if not isinstance(part, str | TextPart):
                return False
            left -= len(part if isinstance(part, str) else part.text)
            texts -= 1
            if left < 0 or texts < 0:
                return False
    return True


def holds_more_than(conversation: Conversation, chars: int) -> bool:
    """Whether a conversation's strings have more than `chars` characters together.

    Looks no further than it must: cheap enough for the event loop.
    """
    left = chars
    for text in _all_strings(conversation):
        left -= len(text)
        if left < 0:
            return True
    return False


def _all_strings(conversation: Conversation) -> Iterator[str]:
    for message in conversation.messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            parts = shown(message.content or ())
            yield from (part.text for part in parts if isinstance(part, TextPart))
        yield message.reasoning or ""
        for call in message.tool_calls:
            yield from strings_in(call.arguments)
    for tool in conversation.tools:
        yield from strings_in(tool)


class _Reading:
    """What has been found so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.other_texts: list[str] = []
        self.images: list[ImageSource] = []
        self.videos: list[VideoSource] = []
        self.tool_data: list[tuple[str, Any]] = []
        self.part_count = 0

    def message(self, message: Message, field: str) -> None:
        self._content(message, field)
        for index, call in enumerate(message.tool_calls):
            self.tool_data.append((f"{field}.tool_calls[{index}]", call.arguments))
            self.texts.append(call.name)
            self.texts.extend(strings_in(call.arguments))
            self._other(call.call_id)
        if message.reasoning is not None:
            self.texts.append(message.reasoning)
        self._other(message.name)
        self._other(message.tool_call_id)

    def _content(self, message: Message, field: str) -> None:
        if isinstance(message.content, str):
            self.texts.append(message.content)
            return
        for index, part in enumerate(message.content or ()):
            self.part_count += 1
            is_file = isinstance(part, FilePart)
            for seen in shown((part,)):
                self._seen(seen, f"{field}.content[{index}]", is_page=is_file)

    def _seen(self, part: TextPart | ImagePart | VideoPart, field: str, *, is_page: bool) -> None:
        if isinstance(part, TextPart):
            self.texts.append(part.text)
        elif isinstance(part, ImagePart):
            self.images.append(ImageSource(field, part.data, part.sizing, is_page))
        else:
            self.videos.append(_video(part, field))

    def _other(self, text: str | None) -> None:
        if text is not None:
            self.other_texts.append(text)


def videos_of(conversation: Conversation) -> tuple[VideoSource, ...]:
    """The videos of a conversation, in order."""
    return tuple(
        _video(part, f"messages[{turn}].content[{index}]")
        for turn, message in enumerate(conversation.messages)
        if not isinstance(message.content, str)
        for index, part in enumerate(message.content or ())
        if isinstance(part, VideoPart)
    )


def _video(part: VideoPart, field: str) -> VideoSource:
    return VideoSource(field, part.file, part.frames, part.seconds, part.sizing)


def _check_count(field: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        raise InvalidRequest(
            f"{field} has {count} entries, expected {least} to {most}", param=field
        )


def _check_json(field: str, value: Any) -> None:
    level, count = [value], 1
    for _ in range(MAX_TOOL_DEPTH):
        level = [child for item in level for child in _children(item)]
        count += len(level)
        if count > MAX_TOOL_VALUES:
            raise _bad_json(field, f"holds more than {MAX_TOOL_VALUES} values")
        if not level:
            return
    raise _bad_json(field, f"is nested more than {MAX_TOOL_DEPTH} levels deep")


def _bad_json(field: str, fault: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {fault}", reason=Reason.INVALID_SCHEMA, param=field)


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
