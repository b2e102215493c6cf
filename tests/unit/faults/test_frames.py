"""Calls made of frames by hand: how they begin and end, and what a server does to a flood."""

import asyncio

import pytest

from tests.faults import frames


def test_a_frame_says_its_length_kind_and_stream() -> None:
    made = frames.frame(frames.DATA, frames.ENDS_STREAM, 3, b"x" * 70_000)
    assert made[:9] == b"\x01\x11\x70" + bytes([frames.DATA, 1]) + b"\0\0\0\x03"


@pytest.mark.parametrize(
    ("length", "begins"), [(5, b"\x05"), (127, b"\x7f\0"), (300, b"\x7f\xad\x01")]
)
def test_texts_of_headers_have_their_length_as_hpack_has_it(length: int, begins: bytes) -> None:
    made = frames.headers({"a": "v" * length})
    assert made == b"\0\x01a" + begins + b"v" * length


async def test_a_flood_ends_when_the_server_has_had_enough() -> None:
    async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    server = await asyncio.start_server(cut_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, frames.Connection(f"127.0.0.1:{port}") as connection:
        async with asyncio.timeout(10):
            await connection.flood(10)
