"""What /v1/messages answers, as the OpenAPI document tells it."""

from typing import Any, Literal

from pydantic import RootModel

from gateway.http.document.answers import Answer


class MessagesErrorDetail(Answer):
    """What went wrong, for programs and for people."""

    type: str
    message: str


class MessagesError(Answer):
    """The body of every failure, and the data of a stream's `error` event."""

    type: Literal["error"]
    error: MessagesErrorDetail


class TextBlock(Answer):
    """What the model said."""

    type: Literal["text"]
    text: str


class ThinkingBlock(Answer):
    """What the model thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(Answer):
    """A call of a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ThinkingBlock | ToolUseBlock
StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class MessageUsage(Answer):
    """Token counts; those of the prompt that were cached count apart."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageObject(Answer):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(Answer):
    """The message without content."""

    type: Literal["message_start"]
    message: MessageObject


class Bare(Answer):
    """An event that says no more."""

    type: Literal["ping", "message_stop"]


class BlockStart(Answer):
    """A block begins."""

    type: Literal["content_block_start"]
    index: int
    content_block: Block


class BlockPiece(Answer):
    """Some of a block, in the field of its type."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None


class BlockDelta(Answer):
    """More of a block."""

    type: Literal["content_block_delta"]
    index: int
    delta: BlockPiece


class BlockStop(Answer):
    """A block ends."""

    type: Literal["content_block_stop"]
    index: int


class MessageEnd(Answer):
    """Why the message ends."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Answer):
    """The message ends."""

    type: Literal["message_delta"]
    delta: MessageEnd
    usage: MessageUsage


class MessageEvent(
    RootModel[
        MessageStart | Bare | BlockStart | BlockDelta | BlockStop | MessageDelta | MessagesError
    ]
):
    """The data of an event of a streamed answer."""


class TokenCount(Answer):
    """How many tokens a prompt has."""

    input_tokens: int
