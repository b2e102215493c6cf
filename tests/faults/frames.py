"""As much of HTTP/2 as it takes to call a gRPC method by hand, and to misbehave.

gRPC's own client keeps a deadline itself; this one only says it, so that what ends the call is the
server.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
ACKNOWLEDGES, ENDS_STREAM, ENDS_HEADERS = 1, 1, 4
INITIAL_WINDOW, MOST = 4, 2**31 - 1  # so that no answer waits for room
_HEAD = struct.Struct(">BHBBI")  # length in three bytes, type, flags, stream


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload)
    return _HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream) + payload


def headers(fields: Mapping[str, str]) -> bytes:
    """Header fields as HPACK's literals, without index or Huffman's code."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def _text(value: str) -> bytes:
    data = value.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    rest, length = len(data) - 127, b"\x7f"
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + data


class Connection:
    """A connection to a gRPC server; use as an async context manager."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._stream = -1

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        room = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, MOST))
        room += frame(WINDOW, 0, 0, struct.pack(">I", MOST - 65_535))
        self._writer.write(PREFACE + room)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def call(self, method: str, message: bytes, more: Mapping[str, str]) -> None:
        """Calls a method; returns when the server has ended the call.

        Args:
            method: As in /package.Service/Method.
            message: The request, serialized.
            more: Header fields besides gRPC's own.

        Raises:
            ConnectionError: the connection ended first.
        """
        self._stream += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
            **more,
        }
        body = struct.pack(">BI", 0, len(message)) + message
        self._writer.write(frame(HEADERS, ENDS_HEADERS, self._stream, headers(fields)))
        self._writer.write(frame(DATA, ENDS_STREAM, self._stream, body))
        while True:
            kind, flags, stream = await self._next()
            if stream == self._stream and (kind == RESET or flags & ENDS_STREAM):
                return

    async def flood(self, count: int) -> None:
        """Sends so many pings and reads until the server ends the connection."""
        self._writer.write(frame(PING, 0, 0, bytes(8)) * count)
        try:
            while True:
                await self._next()
        except ConnectionError:
            return

    async def _next(self) -> tuple[int, int, int]:
        """Type, flags and stream of the next frame; settings and pings are answered."""
        try:
            high, low, kind, flags, stream = _HEAD.unpack(await self._reader.readexactly(9))
            payload = await self._reader.readexactly(high << 16 | low)
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the server has ended the connection") from error
        if kind == SETTINGS and not flags & ACKNOWLEDGES:
            self._writer.write(frame(SETTINGS, ACKNOWLEDGES, 0))
        elif kind == PING and not flags & ACKNOWLEDGES:
            self._writer.write(frame(PING, ACKNOWLEDGES, 0, payload))
        return kind, 0 if kind not in (DATA, HEADERS) else flags, stream
