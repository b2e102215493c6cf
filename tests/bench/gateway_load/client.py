"""An HTTP client that costs next to nothing: one request at a time on a kept connection."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Self

URL = "/v1/chat/completions"
END_BYTES = 1024  # the last events, with the usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came: status, the end of a stream, and seconds from the request to the first and last
    byte.
    """

    status: int
    end: bytes
    first_s: float
    whole_s: float


def request_bytes(body: dict[str, Any]) -> bytes:
    """A whole request to chat completions."""
    data = json.dumps(body).encode()
    head = f"POST {URL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


class Connection:
    """Use as an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.is_closed = False  # as answers to a body that was not read are

    async def __aenter__(self) -> Self:
        opened = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self._reader, self._writer = opened
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, request: bytes, *, at_s: float | None = None) -> Answer:
        """Sends a request and reads its answer.

        Args:
            request: See `request_bytes`.
            at_s: When it was due, `time.perf_counter()` seconds; now where None.
        """
        began = time.perf_counter() if at_s is None else at_s
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        first_s = time.perf_counter() - began
        status = int(head[9:12])
        lower = head.lower()
        self.is_closed = b"connection: close" in lower
        _, found, length = lower.partition(b"content-length: ")
        if found:
            await self._reader.readexactly(int(length.split(b"\r\n")[0]))
            end = b""
        else:
            end = await self._chunked()
        return Answer(
            status=status,
            end=end,
            first_s=first_s,
            whole_s=time.perf_counter() - began,
        )

    async def _chunked(self) -> bytes:
        """Reads to the last chunk; returns the last bytes."""
        end = b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            data = await self._reader.read(1 << 18)
            if not data:
                raise ConnectionError("the answer ended early")
            end = (end + data)[-END_BYTES:]
        return end
