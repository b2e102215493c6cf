"""What is the same in every family's way of calling tools: a call stands between two tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.request.tools import Tool

# Rules of every grammar of calls: the tokens around a call, which the decoder defines.
BEGIN_RULE, END_RULE = "token_0", "token_1"


class CallPiece(NamedTuple):
    """What some text of a call says.

    Attributes:
        name: The tool's, once it is known; else None.
        arguments: More of the arguments' JSON text, maybe empty.
    """

    name: str | None
    arguments: str


class CallReader(Protocol):
    """Reads one call as its text comes."""

    @property
    def is_complete(self) -> bool:
        """Whether name and arguments are all there."""

    def push(self, text: str) -> CallPiece:
        """Takes more of the text between the two tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """A family's way of calling tools.

    Attributes:
        begin: The added token before a call, as it is written.
        end: The one behind it.
        body: Lark rules of what stands between; `body` is a call of one of these tools.
        reader: Makes the reader of one such call.
    """

    begin: str
    end: str
    body: Callable[[Sequence[Tool]], str]
    reader: Callable[[], CallReader]


class CallFormat(NamedTuple):
    """A format in one checkpoint's vocabulary: the ids of the tokens around a call."""

    format: ToolFormat
    begin: int
    end: int
