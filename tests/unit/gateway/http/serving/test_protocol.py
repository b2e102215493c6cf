"""Bytes of a connection as requests, and answers as bytes, without a gateway behind."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.disconnects import while_connected
from gateway.http.serving.listener import Listener
from protos.process.server import bind
from protos.wire.errors import Reason, ServiceError

HEADERS = 2000  # bytes, at most
PIECE = 64 * 1024


class Door:
    """Tells what it was asked; waits at /wait, streams at /stream, breaks at /bug."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.waiting = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        if scope["path"] == "/bug":
            raise ValueError("a bug")
        if scope["path"] == "/wait":
            await self._wait(scope)
        told = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "version": scope["http_version"],
            "length": len(body),
            "headers": sorted(request.headers),
        }
        answer: Response = JSONResponse(told)
        if scope["path"] == "/stream":
            answer = StreamingResponse(self._pieces())
        await answer(scope, receive, send)

    async def _wait(self, scope: Scope) -> None:
        self.waiting.set()
        try:
            await while_connected(scope, asyncio.Event().wait())
        except ServiceError as error:
            assert error.reason is Reason.CANCELLED
            self.left.set()
            raise

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"


@asynccontextmanager
async def listening(door: Door) -> AsyncIterator[int]:
    bound = bind("127.0.0.1", 0)
    listener = Listener(
        door, bound, max_header_bytes=HEADERS, slow_client_s=20.0, drain_timeout_s=1.0
    )
    async with listener:
        yield listener.port


async def exchange(request: bytes, door: Door | None = None) -> bytes:
    """All that comes back until the server closes; what is sent must make it."""
    async with listening(door or Door()) as port:
        return await said(port, request)


async def said(port: int, *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.02)  # so that they come one by one
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join((line, "Host: x", *headers, "", "")).encode()


async def test_requests_in_one_piece_are_answered_in_their_order() -> None:
    first = head("POST /a%20b?c=d HTTP/1.1", "Content-Length: 3") + b"abc"
    last = head("GET http://y/e HTTP/1.1", "Connection: close")
    answer = await exchange(first + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert b'"path":"/a b","query":"c=d","version":"1.1","length":3' in answer
    assert b'"path":"http://y/e"' in answer
    assert answer.index(b"/a b") < answer.index(b"http://y/e")


async def test_a_request_may_come_byte_by_byte() -> None:
    request = head("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
    request += b"3\r\nabc\r\n0\r\n\r\n"
    async with listening(Door()) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request:
                connection.send(bytes([byte]))
                await asyncio.sleep(0)
            answer = b""
            while data := await asyncio.to_thread(connection.recv, PIECE):
                answer += data
    assert b'"length":3' in answer


async def test_trailers_are_no_headers() -> None:
    request = head("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")
    answer = await exchange(request + b"1\r\na\r\n0\r\nauthorization: Bearer x\r\n\r\n")
    assert b'"headers":["connection","host","transfer-encoding"]' in answer


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nx-large: ",
        b"GET /",
        head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"1;x=",
        head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"1\r\na\r\n0\r\nx-large: ",
    ],
)
async def test_what_is_no_body_has_an_end(begin: bytes) -> None:
    sent = 0
    async with listening(Door()) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        try:
            async with asyncio.timeout(20):
                while True:
                    writer.write(b"x" * PIECE)
                    await writer.drain()
                    sent += PIECE
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        writer.close()
    assert sent < 32 << 20  # what the sockets' buffers take


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        head("POST / HTTP/1.1", "Content-Length: 1", "Content-Length: 2"),
        head("POST / HTTP/1.1", "Content-Length: 1", "Transfer-Encoding: chunked"),
        head("POST / HTTP/1.1", "Content-Length: +1"),
        head("POST / HTTP/1.1", "Transfer-Encoding: chunked, identity"),
        head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + b"x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_what_two_servers_might_read_differently_is_refused(request_: bytes) -> None:
    answer = await exchange(request_)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"Invalid HTTP request received.")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("framing", ["Content-Length: 3", "Transfer-Encoding: chunked"])
async def test_an_offer_of_another_protocol_is_declined_and_the_body_read(framing: str) -> None:
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
    body = b"abc" if framing.startswith("Content") else b"3\r\nabc\r\n0\r\n\r\n"
    begin = head("POST /a HTTP/1.1", framing, *offer)
    request = begin + body
    last = head("GET /b HTTP/1.1", "Connection: close")
    for pieces in ([request + last], [request, last], [begin, body + last]):
        async with listening(Door()) as port:
            answer = await said(port, *pieces)
        assert answer.count(b"HTTP/1.1 200 OK") == 2
        assert b'"path":"/a","query":"","version":"1.1","length":3' in answer
        assert b'"path":"/b"' in answer


async def test_a_stream_goes_in_chunks_and_to_old_clients_as_it_is() -> None:
    chunked = await exchange(head("GET /stream HTTP/1.1", "Connection: close"))
    assert b"transfer-encoding: chunked\r\n" in chunked
    assert chunked.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    plain = await exchange(head("GET /stream HTTP/1.0"))
    assert b"transfer-encoding" not in plain
    assert b"connection: close\r\n" in plain
    assert plain.endswith(b"\r\n\r\nonetwo")


async def test_the_answer_to_head_has_no_body() -> None:
    answer = await exchange(head("HEAD / HTTP/1.1", "Connection: close"))
    assert b"content-length: " in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_leave_to_send_a_body_is_given_when_it_is_wanted() -> None:
    async with listening(Door()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asking = ("Content-Length: 3", "Expect: 100-continue", "Connection: close")
        writer.write(head("POST / HTTP/1.1", *asking))
        async with asyncio.timeout(20):
            assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
            writer.write(b"abc")
            assert b'"length":3' in await reader.read()
        writer.close()


async def test_a_bug_is_told_without_its_text() -> None:
    answer = await exchange(head("GET /bug HTTP/1.1"))
    assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert answer.endswith(b"\r\n\r\nInternal Server Error")
    assert b"connection: close" in answer


async def test_work_ends_when_its_client_goes() -> None:
    door = Door()
    async with listening(door) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head("GET /wait HTTP/1.1"))
        async with asyncio.timeout(20):
            await door.waiting.wait()
            writer.close()
            await door.left.wait()


async def test_a_large_body_waits_for_its_reader() -> None:
    size = 4 << 20
    request = head("POST / HTTP/1.1", f"Content-Length: {size}", "Connection: close")
    assert f'"length":{size}'.encode() in await exchange(request + b"x" * size)
