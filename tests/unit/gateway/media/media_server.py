"""A media server that does what it is told, and counts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class MediaServer:
    """Answers each path as `answers` says; speaks plain sockets, so that it can misbehave."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | bytes] = {}
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.requests: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """Where a path is."""
        return f"http://{host}:{self.port}{path}"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            self.at_once -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        answer = self.answers[head.split()[1].decode()]
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer)
        await writer.drain()

    async def end(self) -> None:
        """Ends what is still being answered."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def file(data: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer; `length` is what it claims where that is not so."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


@asynccontextmanager
async def media_server() -> AsyncIterator[MediaServer]:
    """A server on a free port of loopback while the block runs."""
    media = MediaServer()
    server = await asyncio.start_server(media.answer, "127.0.0.1", 0)
    media.port = server.sockets[0].getsockname()[1]
    try:
        yield media
    finally:
        server.close()
        await media.end()
