"""What the HTTP door refuses before it looks at a request, and how it treats slow clients."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from protos.bundle.manifest import Bundle
from tests.unit.gateway.stage import Stage, staged, user

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "/v1/chat/completions"


async def exchange(stage: Stage, request: bytes) -> bytes:
    """Sends raw bytes and returns all that comes until the server closes or 5 s pass."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.http_port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


def head(*lines: str) -> bytes:
    return "\r\n".join((f"POST {URL} HTTP/1.1", "Host: localhost", *lines, "", "")).encode()


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(stage: Stage) -> None:
    answer = await exchange(stage, head("Content-Length: 50000000", "Connection: close"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"request_too_large" in answer


async def test_a_body_without_length_is_refused_when_it_grows_too_large(bundle: Bundle) -> None:
    async with staged(bundle, max_body_bytes=1000) as stage:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b" " * 500

        response = await stage.http.post(URL, content=pieces())
        assert response.status_code == 413


@pytest.mark.parametrize("path", [URL, "/nowhere", "/v1/models"])
async def test_a_body_nobody_wants_is_cut_off_with_the_answer(bundle: Bundle, path: str) -> None:
    async with staged(bundle, max_body_bytes=1000) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.http_port)
        lines = (f"POST {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", "", "")
        writer.write("\r\n".join(lines).encode())
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        sent = 0
        with suppress(ConnectionError, TimeoutError):
            while sent < 64 * 1024 * 1024:
                writer.write(chunk)
                async with asyncio.timeout(5):
                    await writer.drain()
                sent += len(chunk)
        assert sent < 32 * 1024 * 1024  # what the sockets' buffers take
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                assert (await reader.read()).startswith(b"HTTP/1.1 4")
        writer.close()


async def test_a_connection_whose_body_was_read_is_kept(stage: Stage) -> None:
    kept = await stage.http.post(URL, content=b"[]")
    assert kept.status_code == 400
    assert "connection" not in kept.headers


async def test_a_refused_body_that_is_here_costs_no_connection(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret") as stage:
        refused = head("Content-Length: 2") + b"{}"
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.http_port)
        for _ in range(2):
            writer.write(refused)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 401")
            assert b"connection: close" not in answer
            await reader.readexactly(int(answer.partition(b"content-length: ")[2].split()[0]))
        writer.write(head("Content-Length: 2", "Expect: 100-continue"))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401")  # and not that the body may come
        assert b"connection: close" in answer
        writer.close()


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"7"])
async def test_a_body_that_is_no_object_is_told_what_is_expected(stage: Stage, body: bytes) -> None:
    error = (await stage.http.post(URL, content=body)).json()["error"]
    assert "must be a JSON object" in error["message"]
    assert error["param"] is None


async def test_two_authorization_headers_are_refused(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret") as stage:
        for keys in (("Bearer s3cret", "Bearer wrong"), ("Bearer s3cret", "Bearer s3cret")):
            headers = [("authorization", key) for key in keys]
            response = await stage.http.get("/v1/models", headers=headers)
            assert response.status_code == 400
            assert "2 Authorization headers" in response.json()["error"]["message"]


async def test_headers_that_are_too_large_are_refused(stage: Stage) -> None:
    large = await stage.http.get("/v1/models", headers={"x-large": "x" * 20_000})
    assert large.status_code in (400, 431)
    many = await stage.http.get("/v1/models", headers={f"x-{at}": "x" for at in range(200)})
    assert many.status_code == 400


async def test_endless_headers_are_cut_off(stage: Stage) -> None:
    # The server closes while bytes are on their way, so its answer may be lost on it.
    with suppress(ConnectionResetError):
        answer = await exchange(stage, b"GET / HTTP/1.1\r\nx-large: " + b"x" * 200_000)
        assert answer.startswith(b"HTTP/1.1 4")


async def test_foreign_hosts_are_refused_on_loopback(stage: Stage) -> None:
    strange = ("127.0.0.1:1@evil", "localhost:80:80", "localhost:x", "[::1", "[::1]x", "a/b")
    for host in ("evil.example", "evil.example:80", "", "localhost.evil.example", *strange):
        response = await stage.http.get("/v1/models", headers={"host": host})
        assert response.status_code == 400
    for host in ("localhost", "127.0.0.1:1234", "[::1]:80", "LOCALHOST"):
        response = await stage.http.get("/v1/models", headers={"host": host})
        assert response.status_code == 200


async def test_no_cors_headers_are_sent(stage: Stage) -> None:
    response = await stage.http.get("/v1/models", headers={"origin": "https://evil.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_every_route_wants_the_key_but_health(bundle: Bundle) -> None:
    async with staged(bundle, api_key="s3cret") as stage:
        for key in (None, "Bearer wrong", "Bearer", "Basic s3cret", "Bearer s3cret2"):
            headers = {} if key is None else {"authorization": key}
            for path in ("/v1/models", "/docs", "/openapi.json", "/nowhere"):
                response = await stage.http.get(path, headers=headers)
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
            response = await stage.http.post(URL, json={"messages": user()}, headers=headers)
            assert response.status_code == 401
        right = {"authorization": "Bearer s3cret"}
        assert (await stage.http.get("/v1/models", headers=right)).status_code == 200
        assert (await stage.http.get("/nowhere", headers=right)).status_code == 404
        for path in ("/health", "/health/ready", "/health/live"):
            assert (await stage.http.get(path)).status_code == 200


async def test_headers_that_trickle_are_cut_off(bundle: Bundle) -> None:
    async with staged(bundle, slow_client_s=0.3) as stage:
        assert await exchange(stage, b"GET /health HTTP/1.1\r\nHost: loc") == b""


async def test_headers_that_trickle_on_a_used_connection_are_cut_off(bundle: Bundle) -> None:
    async with staged(bundle, slow_client_s=0.3) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.gateway.http_port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /health HTTP/1.1\r\nHo")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


async def test_a_body_that_trickles_is_cut_off(bundle: Bundle) -> None:
    async with staged(bundle, slow_client_s=0.3) as stage:
        request = head("Content-Length: 100", "Connection: close") + b'{"mess'
        answer = await exchange(stage, request)
        assert answer.startswith(b"HTTP/1.1 504")


async def test_a_client_that_reads_nothing_loses_its_stream(bundle: Bundle) -> None:
    async with staged(bundle, slow_client_s=0.3) as stage:
        stage.decoder.tokens = stage.will_say("a b") * 1500
        stage.decoder.stall_after = len(stage.decoder.tokens)
        body = {"messages": user(), "stream": True, "logprobs": True, "top_logprobs": 20}
        data = json.dumps(body).encode()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", stage.gateway.http_port))
            connection.sendall(head(f"Content-Length: {len(data)}") + data)
            async with asyncio.timeout(20):
                await stage.decoder.cancelled.wait()


async def test_others_are_served_while_slow_clients_wait(stage: Stage) -> None:
    connections = [
        await asyncio.open_connection("127.0.0.1", stage.gateway.http_port) for _ in range(50)
    ]
    for _, writer in connections:
        writer.write(b"GET /health HTTP/1.1\r\n")
    assert (await stage.post(messages=user())).status_code == 200
    for _, writer in connections:
        writer.close()
