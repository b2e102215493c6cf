"""Plain data of a conversation: what the HTTP and gRPC front doors convert into.

Nothing here is checked against limits; `gateway.prompt.builder.PromptBuilder.prepare` validates the
whole before it renders anything. The two doors only convert.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from gateway.media.images import image_bytes
from gateway.media.pdfs import Page
from gateway.media.sizing import ImageSizing
from gateway.media.sources import is_followed
from gateway.media.videos import VideoSizing


class Role(StrEnum):
    """Who speaks; the values are the chat template's role names."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Plain text; special tokens in it are treated as text."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An encoded image (PNG, JPEG, WebP, GIF or BMP) as the client sent it.

    Attributes:
        data: The file; empty until it is fetched, where `url` is set.
        url: Where the file is to be fetched from; None where the client sent it.
        sizing: What the client says of the size it is resized to.
    """

    data: bytes = b""
    url: str | None = None
    sizing: ImageSizing = ImageSizing()

    @classmethod
    def at(cls, url: str, *, sizing: ImageSizing, field: str) -> Self:
        """The image a client names by URL: the file in a `data:` URL, any other's to be fetched.

        Args:
            url: As the client sent it.
            sizing: What it says of the size.
            field: Its place in the request, for errors.

        Raises:
            InvalidRequest: URL_NOT_ALLOWED, a scheme that is never followed; INVALID_IMAGE, not
                base64 or empty.
        """
        if is_followed(url):
            return cls(url=url, sizing=sizing)
        return cls(data=image_bytes(url, field=field), sizing=sizing)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPart:
    """A video as the client sent it: a file (MP4, WebM, Matroska, GIF, WebP), or frames.

    `frames` are image files in order of time, `seconds` when each is shown; both are empty beside
    a `file`, and `seconds` also where `sizing.fps` is the frames' rate. `url` is where a file is to
    be fetched from, which is empty until then.
    """

    file: bytes = b""
    url: str | None = None
    frames: tuple[bytes, ...] = ()
    seconds: tuple[float, ...] = ()
    sizing: VideoSizing = VideoSizing()


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A PDF as the client sent it, or a file behind a URL, which may prove to be one, or text.

    Attributes:
        data: The file; empty until it is fetched, where `url` is set.
        url: Where the file is to be fetched from; None where the client sent it.
        name: What the client calls it.
        sizing: What the client says of the size its pages are resized to.
        pages: What the vision tier made of it; none before.
    """

    data: bytes = b""
    url: str | None = None
    name: str | None = None
    sizing: ImageSizing = ImageSizing()
    pages: tuple[Page, ...] = ()

    def shown(self) -> Iterator[TextPart | ImagePart]:
        """The pages in order as a model is given them: a line, the image, the text in it."""
        named = "Page" if self.name is None else f"{self.name}, page"
        for number, page in enumerate(self.pages, start=1):
            yield TextPart(text=f"{named} {number} of {len(self.pages)}:\n")
            yield ImagePart(data=page.image, sizing=self.sizing)
            yield TextPart(text=f"\n{page.text}\n" if page.text else "\n")


Part = TextPart | ImagePart | VideoPart | FilePart


def shown(parts: Iterable[Part]) -> Iterator[TextPart | ImagePart | VideoPart]:
    """The parts in order as a template sees them: pages of files are texts and images."""
    for part in parts:
        if isinstance(part, FilePart):
            yield from part.shown()
        else:
            yield part


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call the assistant made earlier in the conversation.

    `arguments` is what the template gets: OpenAI's JSON text as a string, or the object itself.
    The Qwen3-VL template writes a string as it is and an object as JSON.
    """

    name: str
    arguments: str | Mapping[str, Any]
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn.

    `content` is a plain string, or parts in order. The template may render the two differently,
    so a client's string stays a string. None is an assistant turn with tool calls alone, and is
    an empty string to the template.
    """

    role: Role
    content: str | tuple[Part, ...] | None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class Effort(StrEnum):
    """How much to think before an answer; the values are OpenAI's."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Everything that shapes a prompt.

    `tools` are JSON objects in OpenAI's form ({"type": "function", "function": {...}}), in the
    client's own key order, because the template writes them as they are.

    `template_options` are values for what else the checkpoint's template reads, by name: text,
    numbers, true or false. `reasoning_effort` is how much the model should think, in OpenAI's
    words; None leaves it to the checkpoint.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    add_vision_id: bool = False
    template_options: Mapping[str, str | float | bool] = field(default_factory=dict)
    reasoning_effort: Effort | None = None


NOTHING_SAID = Conversation(messages=())


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPrompt:
    """A prompt of text alone, given as it is, without a template.

    Added tokens written in `text` are those tokens: all of it is the client's, who writes a whole
    prompt with them. `ids` are there instead where the client has tokenized it itself.
    """

    text: str = ""
    ids: tuple[int, ...] | None = None
