"""Streams that are cancelled, at any moment from the request's first byte to the last token."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.soak.apis import APIS, Api, Body, chat_content, data_url
from tests.soak.bank import Bank
from tests.soak.client import Client, Wrong

CHAT = APIS["chat"]
LONG = 400  # tokens of an answer that goes on until it is cancelled
RESET = struct.pack("ii", 1, 0)  # SO_LINGER without time: the connection ends with a RST

Cut = Callable[[Client, Bank], Awaitable[bool]]  # whether it was cancelled before its end


async def before_first_token(client: Client, bank: Bank) -> bool:
    """Within 60 ms of asking, whole or streamed, with or without an image."""
    asked = client.rng.choice(client.rng.choice((bank.texts, bank.images)))
    return await _within(client, CHAT, _endless(chat_content(asked)), client.rng.random() * 0.06)


async def in_the_towers_pass(client: Client, bank: Bank) -> bool:
    """While a new large image is read, decoded or encoded."""
    image = {"type": "image_url", "image_url": {"url": data_url(client.rng.choice(bank.large))}}
    body = _endless([image, {"type": "text", "text": "What is this?"}])
    body["cache_salt"] = f"{client.rng.random()}"
    return await _within(client, CHAT, body, client.rng.uniform(0.02, 0.6))


async def in_the_middle(client: Client, bank: Bank) -> bool:
    """After some tokens of a long answer; now and then the client has not read for a while."""
    asked = client.rng.choice(client.rng.choice((bank.texts, bank.images)))
    return await _after(client, CHAT, _endless(chat_content(asked)), client.rng.randrange(1, 60))


async def in_the_middle_elsewhere(client: Client, bank: Bank) -> bool:
    """After some events of another API's answer."""
    api = APIS[client.rng.choice(("responses", "messages", "ollama"))]
    asked = client.rng.choice(client.rng.choice((bank.texts, bank.images)))
    return await _after(client, api, api.body(asked), client.rng.randrange(1, 4))


async def during_upload(client: Client, bank: Bank) -> bool:
    """With a part of an image still to send; every second connection is reset."""
    image = {"type": "image_url", "image_url": {"url": data_url(client.rng.choice(bank.large))}}
    body = json.dumps(_endless([image, {"type": "text", "text": "What is this?"}])).encode()
    where = urlsplit(client.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    fields = {"Host": where.netloc, "Content-Type": "application/json", **client.headers()}
    fields["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    try:
        writer.write(f"POST {CHAT.path} HTTP/1.1\r\n{head}\r\n".encode())
        writer.write(body[: client.rng.randrange(len(body))])
        await writer.drain()
        await asyncio.sleep(client.rng.random() * 0.1)
    finally:
        if client.rng.random() < 0.5:
            opened: socket.socket = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return True


def _endless(content: list[Body]) -> Body:
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": LONG,
        "min_tokens": LONG,
    }


async def _within(client: Client, api: Api, body: Body, seconds: float) -> bool:
    """Cancels so many seconds after asking."""
    try:
        async with asyncio.timeout(seconds):
            await client.streamed(api, body)
    except TimeoutError:
        return True
    return False


async def _after(client: Client, api: Api, body: Body, events: int) -> bool:
    """Cancels after so many events."""
    answer: Any
    async with client.stream(api, body) as answer:
        if answer.status_code != 200:
            raise Wrong(f"{answer.status_code} {(await answer.aread()).decode()}")
        async for line in answer.aiter_lines():
            events -= line.startswith(("data: {", "{"))
            if events <= 0:
                if client.rng.random() < 0.1:
                    await asyncio.sleep(client.rng.random())
                return True
    return False


CUTS: Mapping[str, tuple[Cut, float]] = {
    "before the first token": (before_first_token, 5),
    "in the tower's pass": (in_the_towers_pass, 3),
    "in the middle": (in_the_middle, 7),
    "in the middle, other APIs": (in_the_middle_elsewhere, 3),
    "during upload": (during_upload, 3),
}
