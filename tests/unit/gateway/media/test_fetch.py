"""Files by URL: what is fetched, what is refused, and what a bad server can do."""

import asyncio
import gzip
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.media import http_files
from gateway.media.fetch import Fetcher
from gateway.media.images import MediaLimits
from gateway.media.sources import ByteLimit, FetchLimits, MediaHost, MediaPolicy, networks
from protos.wire.errors import Reason, ServiceError
from tests.unit.gateway.media.media_server import MediaServer, file, media_server

FIELD = "messages[0].content[1]"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
LOOPBACK = networks(["127.0.0.0/8"])


def at_most(size: int) -> ByteLimit:
    return MediaLimits(max_image_bytes=size).file


ANY_SIZE = at_most(10**6)


@pytest.fixture
async def media() -> AsyncIterator[MediaServer]:
    async with media_server() as server:
        yield server


def policy(media: MediaServer, **changes: Any) -> MediaPolicy:
    names = ("127.0.0.1", "localhost", "media.example", "2130706433", "0x7f.1", "127.1", "0")
    hosts = tuple(MediaHost.parse(f"{name}:{media.port}") for name in names)
    return MediaPolicy(**{"hosts": hosts, "networks": LOOPBACK, **changes})


async def fetched(policy: MediaPolicy, url: str, **limits: Any) -> bytes:
    async with Fetcher(policy, FetchLimits(**limits)) as fetcher:
        return await fetcher.fetch(url, field=FIELD, limit=at_most(len(PNG)))


async def refusal(policy: MediaPolicy, url: str, **limits: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await fetched(policy, url, **limits)
    assert caught.value.message.startswith(FIELD)
    assert "127.0.0.1" not in caught.value.message
    return caught.value


async def test_a_file_is_what_the_server_sent(media: MediaServer) -> None:
    media.answers["/a.png"] = file(PNG, "Content-Type: text/html")
    assert await fetched(policy(media), media.url("/a.png")) == PNG
    assert b"Accept-Encoding: identity" in media.requests[0]
    assert b"ookie" not in media.requests[0] and b"uthorization" not in media.requests[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "0"])
async def test_no_spelling_of_loopback_is_dialled(media: MediaServer, host: str) -> None:
    media.answers["/a"] = file(PNG)
    error = await refusal(policy(media, networks=()), media.url("/a", host))
    assert error.reason in (Reason.URL_NOT_ALLOWED, Reason.MEDIA_FETCH_FAILED)
    assert media.connections == 0


async def test_a_host_that_is_not_listed_is_not_looked_up(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, ["127.0.0.1"])
    error = await refusal(policy(media), media.url("/a", "evil.example"))
    assert error.reason is Reason.URL_NOT_ALLOWED
    assert asked == []


def resolving(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    """Lets names lead to these addresses; returns the list of names that are asked for."""
    asked: list[str] = []

    async def answer(loop: Any, host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_TCP
        return [(socket.AF_INET, kind, protocol, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", answer)
    return asked


async def test_a_name_is_looked_up_once_and_that_answer_dialled(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.answers["/a"] = file(PNG)
    asked = resolving(monkeypatch, ["127.0.0.1"])
    assert await fetched(policy(media), media.url("/a", "media.example")) == PNG
    assert asked == ["media.example"]
    assert b"Host: media.example" in media.requests[0]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.215.14", "127.0.0.1"]])
async def test_a_name_with_one_address_inside_is_refused(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolving(monkeypatch, addresses)
    error = await refusal(policy(media, networks=()), media.url("/a", "media.example"))
    assert error.reason is Reason.URL_NOT_ALLOWED
    assert media.connections == 0


async def test_the_socket_is_the_last_to_look(
    media: MediaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def blind(self: Any, host: str, port: int = 0, family: int = 0) -> list[Any]:
        return [
            {"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET}
            | {"proto": 0, "flags": socket.AI_NUMERICHOST}
        ]

    monkeypatch.setattr(http_files._PublicResolver, "resolve", blind)
    media.answers["/a"] = file(PNG)
    await refusal(policy(media, networks=()), media.url("/a", "media.example"))
    assert media.connections == 0
    assert await fetched(policy(media), media.url("/a", "media.example")) == PNG


async def test_redirects_are_followed_and_each_is_checked(media: MediaServer) -> None:
    def to(where: str) -> bytes:
        return file(b"", f"Location: {where}", status="302 Found")

    media.answers = {
        "/1": to("/2"),
        "/2": to(media.url("/3", "localhost")),
        "/3": to("4"),
        "/4": file(PNG),
        "/0": to("/1"),
        "/out": to("http://evil.example/a"),
        "/inside": to("http://169.254.169.254/latest"),
        "/file": to("file:///etc/hostname"),
        "/nowhere": file(b"", status="302 Found"),
    }
    assert await fetched(policy(media), media.url("/1")) == PNG
    assert (await refusal(policy(media), media.url("/0"))).reason is Reason.MEDIA_FETCH_FAILED
    for path in ("/out", "/inside", "/file"):
        assert (await refusal(policy(media), media.url(path))).reason is Reason.URL_NOT_ALLOWED
    assert "nowhere" in (await refusal(policy(media), media.url("/nowhere"))).message


async def never(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def drop_by_drop(writer: asyncio.StreamWriter) -> None:
    writer.write(file(PNG)[:60])
    for _ in range(300):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("answer", [never, drop_by_drop])
async def test_a_slow_server_costs_its_time_and_no_more(media: MediaServer, answer: Any) -> None:
    media.answers = {"/slow": answer, "/a": file(PNG)}
    async with Fetcher(policy(media), FetchLimits(total_s=1.0)) as fetcher:
        slow = asyncio.create_task(fetcher.fetch(media.url("/slow"), field=FIELD, limit=ANY_SIZE))
        assert await fetcher.fetch(media.url("/a"), field=FIELD, limit=ANY_SIZE) == PNG
        with pytest.raises(ServiceError) as caught:
            await slow
    assert caught.value.reason is Reason.MEDIA_FETCH_TIMEOUT
    assert caught.value.kind.http_status == 504


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (file(b"no", status="500 Oops"), Reason.MEDIA_FETCH_FAILED),
        (file(b"no", status="404 Gone"), Reason.MEDIA_FETCH_FAILED),
        (file(b"", status="204 Nothing"), Reason.MEDIA_FETCH_FAILED),
        (file(PNG[:9], length=len(PNG)), Reason.MEDIA_FETCH_FAILED),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
            Reason.MEDIA_FETCH_FAILED,
        ),
        (b"SSH-2.0-OpenSSH\r\n", Reason.MEDIA_FETCH_FAILED),
        (b"", Reason.MEDIA_FETCH_FAILED),
        (file(gzip.compress(PNG), "Content-Encoding: gzip"), Reason.MEDIA_FETCH_FAILED),
        (file(b"x", length=1 << 40), Reason.IMAGE_TOO_LARGE),
        (b"HTTP/1.1 200 OK\r\n\r\n" + PNG + b"x", Reason.IMAGE_TOO_LARGE),
    ],
    ids=[
        "a fault of the server",
        "not there",
        "no content",
        "cut short",
        "a broken chunk",
        "another protocol",
        "nothing",
        "compressed",
        "too large by its header",
        "too large by its body",
    ],
)
async def test_what_a_bad_server_sends_is_no_file(
    media: MediaServer, answer: bytes, reason: Reason
) -> None:
    media.answers["/a"] = answer
    error = await refusal(policy(media), media.url("/a"))
    assert error.reason is reason
    assert error.param == FIELD


async def test_nobody_at_the_port_is_said_in_our_words(media: MediaServer) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    hosts = (MediaHost.parse(f"127.0.0.1:{port}"),)
    error = await refusal(policy(media, hosts=hosts), f"http://127.0.0.1:{port}/")
    assert error.reason is Reason.MEDIA_FETCH_FAILED
    assert "rrno" not in error.message


async def test_so_many_at_once(media: MediaServer) -> None:
    async def soon(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(file(PNG))

    media.answers["/a"] = soon
    async with Fetcher(policy(media), FetchLimits(parallel=3)) as fetcher:
        fetches = (fetcher.fetch(media.url("/a"), field=FIELD, limit=ANY_SIZE) for _ in range(10))
        assert await asyncio.gather(*fetches) == [PNG] * 10
    assert media.most_at_once == 3


@pytest.mark.parametrize(
    "url",
    [
        "http://media.example/" + "a" * 9000,
        "http://media.example/a\r\nHost: evil",
        "http://media.example/ a",
        "file:///etc/passwd",
        "file://evil/a",
    ],
)
async def test_urls_that_are_never_followed(media: MediaServer, url: str) -> None:
    assert (await refusal(policy(media), url)).reason is Reason.URL_NOT_ALLOWED


async def test_files_below_the_folder_are_read_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a b.png").write_bytes(PNG)
    (folder / "large.png").write_bytes(PNG + b"x")
    (tmp_path / "secret").write_bytes(PNG)
    (tmp_path / "media-not").mkdir()
    (tmp_path / "media-not" / "a").write_bytes(PNG)
    (folder / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe")
    within = MediaPolicy(folder=str(folder))
    assert await fetched(within, f"file://{folder}/below/a%20b.png") == PNG
    large = await refusal(within, f"file://{folder}/large.png")
    assert large.reason is Reason.IMAGE_TOO_LARGE
    outside = ("link", "../secret", "%2e%2e/secret", "pipe", "below", "nothing", "")
    for name in (*outside, "../media-not/a", "//../secret"):
        refused = await refusal(within, f"file://{folder}/{name}")
        assert refused.reason is Reason.URL_NOT_ALLOWED, name
