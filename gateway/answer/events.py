"""What comes back: tokens from a decoder, text for a client, and how both end.

Times are carried, not computed with, so they stay the messages they came in or will leave in.
"""

from dataclasses import dataclass
from enum import StrEnum

from protos.tandem.v1 import decoder_pb2, gateway_pb2


class FinishReason(StrEnum):
    """Why an answer ended; the values are OpenAI's."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopToken:
    """One candidate token; natural log."""

    token_id: int
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputToken:
    """One generated token.

    `logprob` and `top` are there when asked for; `logits` is one float32 row of the
    vocabulary, little-endian bytes as the decoder sent them.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[TopToken, ...] = ()
    logits: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A decoder accepted a sequence; `needed_spans` are indices of the prompt's spans."""

    cached_tokens: int
    needed_spans: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderEnd:
    """How a sequence ended in the decoder."""

    finish_reason: FinishReason
    completion_tokens: int
    cached_tokens: int
    timings: decoder_pb2.GenerateTimings


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerText:
    """Some of an answer: whole characters, and the tokens that are complete with them."""

    text: str
    tokens: tuple[OutputToken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerThought:
    """Some of the thought before an answer, likewise; the tokens around it are among its tokens."""

    text: str
    tokens: tuple[OutputToken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCall:
    """Some of a call of a tool.

    The first piece of a call has its id and its tool's name, the others have neither. A piece
    without arguments and name holds tokens alone.

    Attributes:
        index: The call's place among those of the answer, from 0.
        arguments: More of the arguments' JSON text.
    """

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str
    tokens: tuple[OutputToken, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerEnd:
    """How an answer ended; always the last event of a stream.

    `thought_tokens` are those of its completion tokens that were a thought before the answer, the
    tokens around it included. `stop_string` is the one that ended it, if one did.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    thought_tokens: int = 0
    stop_string: str | None = None
    timings: gateway_pb2.ChatTimings
    image_tokens: int = 0  # of the prompt's, placeholders of images
    video_tokens: int = 0  # and of videos


AnswerPiece = AnswerThought | AnswerText | AnswerCall
AnswerEvent = AnswerPiece | AnswerEnd
