"""What goes over the pipes between the vision process and its video readers.

A message is a length, JSON of that length, and as many bytes as its "sizes" say, one piece after
the other. Nothing is unpickled, and nothing of a client's is in the JSON.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

_LENGTH = struct.Struct("<I")
HEAD_BYTES = _LENGTH.size

Pieces = Sequence[bytes | memoryview]


class Message(NamedTuple):
    """Plain fields, and pieces of bytes beside them."""

    fields: dict[str, Any]
    pieces: Pieces = ()


def written(message: Message) -> list[bytes | memoryview]:
    """The bytes of a message, in order."""
    fields = {**message.fields, "sizes": [len(piece) for piece in message.pieces]}
    text = json.dumps(fields).encode()
    return [_LENGTH.pack(len(text)), text, *message.pieces]


def text_size(head: bytes) -> int:
    """How long the JSON behind the first `HEAD_BYTES` is."""
    (size,) = _LENGTH.unpack(head)
    return int(size)


def fields_of(text: bytes) -> tuple[dict[str, Any], list[int]]:
    """Fields of a message, and the sizes of the pieces that follow."""
    fields = json.loads(text)
    return fields, fields.pop("sizes")
