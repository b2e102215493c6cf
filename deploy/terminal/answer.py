"""One question asked and its answer shown as it comes, with what it cost."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.text import Text

from deploy.terminal.markdown import MarkdownStream
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire.errors import InternalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer and what it cost; times in milliseconds, of the gateway's clock."""

    text: str
    finish_reason: str  # "stop", "length" or "unspecified"
    prompt_tokens: int
    completion_tokens: int
    first_token_ms: float
    decode_ms: float

    @classmethod
    def of(cls, chunks: Iterable[gateway_pb2.ChatChunk]) -> Self:
        """Collects an answer's chunks.

        Raises:
            InternalError: the stream ended without its last message.
            ServiceError: the gateway failed.
        """
        pieces: list[str] = []
        completion: gateway_pb2.ChatCompletion | None = None
        for chunk in chunks:
            pieces.append(chunk.text)
            if chunk.HasField("completion"):
                completion = chunk.completion
        if completion is None:
            raise InternalError("the answer ended too early")
        reason = decoder_pb2.FinishReason.Name(completion.finish_reason)
        return cls(
            text="".join(pieces),
            finish_reason=reason.removeprefix("FINISH_REASON_").lower(),
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            first_token_ms=completion.timings.first_token_ms,
            decode_ms=completion.timings.decode_ms,
        )

    @property
    def tokens_per_second(self) -> float | None:
        """Decoding speed after the first token; None for answers of one token."""
        steps = self.completion_tokens - 1
        return steps / (self.decode_ms / 1000.0) if steps > 0 and self.decode_ms > 0 else None

    @property
    def model_ms(self) -> float:
        """Time the services worked on it."""
        return self.first_token_ms + self.decode_ms

    def cost(self) -> str:
        """One line: tokens, time to first token, tokens per second."""
        speed = self.tokens_per_second
        return (
            f"{self.prompt_tokens} + {self.completion_tokens} tokens"
            f" · first after {duration(self.first_token_ms)}"
            + (f" · {speed:.1f} tok/s" if speed is not None else "")
            + (" · cut off at the token limit" if self.finish_reason == "length" else "")
        )


def duration(milliseconds: float) -> str:
    """Three digits or so: `4 ms`, `250 ms`, `1.25 s`."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.2f} s"


def stream_answer(
    console: Console,
    chunks: Iterable[gateway_pb2.ChatChunk],
    *,
    notes: Console | None = None,
    markdown: bool = False,
) -> Answer:
    """Prints an answer piece by piece.

    Args:
        console: Gets the answer.
        chunks: As the gateway sends them.
        notes: Gets the thought before the answer; None: it is not shown.
        markdown: Whether the answer is Markdown, to be shown in form; needs a terminal.

    Raises:
        ServiceError: the gateway failed, or the stream ended without its last message.
    """
    if notes is not None:
        chunks = _thoughts_shown(notes, chunks)
    shown = _formed(console, chunks) if markdown else _printed(console, chunks)
    return Answer.of(shown)


def _printed(
    console: Console, chunks: Iterable[gateway_pb2.ChatChunk]
) -> Iterator[gateway_pb2.ChatChunk]:
    for chunk in chunks:
        # As text, not markup; control characters of the model must not steer the terminal.
        console.print(Text(_printable(chunk.text)), end="", soft_wrap=True)
        yield chunk
    console.print()


def _formed(
    console: Console, chunks: Iterable[gateway_pb2.ChatChunk]
) -> Iterator[gateway_pb2.ChatChunk]:
    with MarkdownStream(console) as stream:
        for chunk in chunks:
            if chunk.text:
                stream.add(_printable(chunk.text))
            yield chunk


def _thoughts_shown(
    notes: Console, chunks: Iterable[gateway_pb2.ChatChunk]
) -> Iterator[gateway_pb2.ChatChunk]:
    """Prints a thought as it comes, and ends its line before the answer."""
    is_thinking = False
    for chunk in chunks:
        if chunk.reasoning:
            is_thinking = True
            thought = Text(_printable(chunk.reasoning), style="dim italic")
            notes.print(thought, end="", soft_wrap=True)
        if is_thinking and (chunk.text or chunk.HasField("completion")):
            is_thinking = False
            notes.print()
        yield chunk


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter in "\n\t" or letter.isprintable())
