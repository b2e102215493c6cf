"""Features are kept within bytes, encoded once for all who ask, and never half."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.tiers.embeddings import EmbeddingCache, EmbeddingKey
from protos.tandem.v1 import tensor_pb2, vision_pb2
from protos.wire.errors import DeadlineExceeded, InvalidRequest, Reason, Unavailable

TOKEN_BYTES = 100
SUMMARY = vision_pb2.EncodeSummary(encode_ms=3.0)

Forward = Callable[[tensor_pb2.FeatureChunk], Awaitable[None]]


def source(field: str = "messages[0]", tokens: int = 4) -> Any:
    """What the cache asks of an image or a piece of a video."""
    return SimpleNamespace(field=field, token_count=tokens)


def key(name: bytes, salt: bytes = b"") -> EmbeddingKey:
    return EmbeddingKey(salt, (name,))


def chunk(at: int, size: int = 100) -> tensor_pb2.FeatureChunk:
    return tensor_pb2.FeatureChunk(row_offset=at, values=tensor_pb2.Tensor(data=b"x" * size))


class Encoder:
    """Encodes two chunks; with `gate`, the second waits for it."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.calls = 0
        self.cancelled = 0
        self.error = error
        self.gate = asyncio.Event()
        self.gate.set()
        self.has_begun = asyncio.Event()

    async def __call__(self, forward: Forward) -> vision_pb2.EncodeSummary:
        self.calls += 1
        await forward(chunk(0))
        self.has_begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        await forward(chunk(1))
        return SUMMARY


class Reader:
    """One request that wants features."""

    def __init__(self, cache: EmbeddingCache, encode: Encoder, *, within_s: float = 30.0) -> None:
        self.cache = cache
        self.encode = encode
        self.got: list[int] = []
        self.by_s = time.monotonic() + within_s

    async def forward(self, taken: tensor_pb2.FeatureChunk) -> None:
        self.got.append(taken.row_offset)

    async def ask(
        self, name: bytes, *, salt: bytes = b"", field: str = "messages[0]", tokens: int = 4
    ) -> vision_pb2.EncodeSummary | None:
        return await self.cache.send(
            key(name, salt),
            source(field, tokens),
            self.encode,
            self.forward,
            by_s=self.by_s,
            holder=self,
        )


def small_cache(most: int = 1000) -> EmbeddingCache:
    return EmbeddingCache(max_bytes=most, token_bytes=TOKEN_BYTES)


async def test_what_is_kept_is_not_encoded_again_but_for_another_tenant() -> None:
    cache, encode = small_cache(), Encoder()
    first, second, other = (Reader(cache, encode) for _ in range(3))
    assert await first.ask(b"a") == SUMMARY
    assert await second.ask(b"a") == vision_pb2.EncodeSummary()  # it took nothing this time
    assert first.got == second.got == [0, 1]
    assert (encode.calls, cache.hits, cache.misses, len(cache)) == (1, 1, 1, 1)
    assert 200 < cache.size_bytes < 300  # two chunks as they are, not as they might have been
    assert await other.ask(b"a", salt=b"other") == SUMMARY
    assert encode.calls == 2


async def test_many_who_ask_at_once_share_one_encoding_and_read_it_as_it_comes() -> None:
    cache, encode = small_cache(), Encoder()
    encode.gate.clear()
    readers = [Reader(cache, encode) for _ in range(8)]
    asking = [asyncio.create_task(reader.ask(b"a")) for reader in readers]
    await encode.has_begun.wait()
    await asyncio.sleep(0)
    assert all(reader.got == [0] for reader in readers)
    encode.gate.set()
    assert await asyncio.gather(*asking) == [SUMMARY] * 8
    assert all(reader.got == [0, 1] for reader in readers)
    assert (encode.calls, cache.hits, cache.misses) == (1, 7, 1)


async def test_whoever_began_it_may_leave_and_the_last_to_leave_ends_it() -> None:
    cache, encode = small_cache(), Encoder()
    encode.gate.clear()
    readers = [Reader(cache, encode) for _ in range(2)]
    asking = [asyncio.create_task(reader.ask(b"a")) for reader in readers]
    await encode.has_begun.wait()
    asking[0].cancel()
    await asyncio.gather(asking[0], return_exceptions=True)
    cache.leave(readers[0])
    assert encode.cancelled == 0
    asking[1].cancel()
    await asyncio.gather(asking[1], return_exceptions=True)
    await asyncio.sleep(0)
    assert encode.cancelled == 0  # its request is still at work: a moved answer asks again
    again = asyncio.create_task(readers[1].ask(b"a"))
    await asyncio.sleep(0)
    encode.gate.set()
    assert await again == SUMMARY
    assert encode.calls == 1
    encode.gate.clear()
    encode.has_begun.clear()
    last = Reader(cache, encode)
    asking = [asyncio.create_task(last.ask(b"b"))]
    await encode.has_begun.wait()
    asking[0].cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    cache.leave(last)
    await asyncio.sleep(0)
    assert encode.cancelled == 1
    assert len(cache) == 1


async def test_a_failure_is_each_waiting_readers_own_and_is_not_kept() -> None:
    cache = small_cache()
    failing = Encoder(error=InvalidRequest("messages[0] is damaged", param="messages[0]"))
    failing.gate.clear()
    readers = [Reader(cache, failing) for _ in range(2)]
    asking = [
        asyncio.create_task(reader.ask(b"a", field=field))
        for reader, field in zip(readers, ("messages[0]", "messages[7]"), strict=True)
    ]
    await failing.has_begun.wait()
    await asyncio.sleep(0)
    failing.gate.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [error.param for error in errors] == ["messages[0]", "messages[7]"]  # type: ignore[union-attr]
    assert str(errors[1]) == "messages[7] is damaged"
    assert (len(cache), cache.size_bytes) == (0, 0)
    assert await Reader(cache, Encoder()).ask(b"a") == SUMMARY


async def test_a_deadline_of_others_is_not_ones_own() -> None:
    cache = small_cache()

    async def never(forward: Forward) -> vision_pb2.EncodeSummary:
        await asyncio.sleep(0.01)
        raise DeadlineExceeded("too slow", param="messages[0]")

    hasty = Reader(cache, Encoder(), within_s=0.01)
    hasty.encode = never  # type: ignore[assignment]
    patient = Reader(cache, Encoder())
    asking = [asyncio.create_task(hasty.ask(b"a")), asyncio.create_task(patient.ask(b"a"))]
    first, second = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, DeadlineExceeded)
    assert second == SUMMARY


async def test_a_reader_waits_no_longer_than_it_may() -> None:
    cache, encode = small_cache(), Encoder()
    encode.gate.clear()
    patient = Reader(cache, encode)
    asking = asyncio.create_task(patient.ask(b"a"))
    await encode.has_begun.wait()
    with pytest.raises(DeadlineExceeded) as late:
        await Reader(cache, encode, within_s=0.02).ask(b"a", field="messages[3]")
    assert late.value.param == "messages[3]"
    encode.gate.set()
    assert await asking == SUMMARY


async def test_the_least_recently_used_makes_room_and_no_more_is_held_than_may_be() -> None:
    cache, encode = small_cache(700), Encoder()  # each may come to 400, and comes to some 210
    for name in (b"a", b"b"):
        assert await Reader(cache, encode).ask(name)
    await Reader(cache, encode).ask(b"a")
    assert await Reader(cache, encode).ask(b"c")
    assert encode.calls == 3
    await Reader(cache, encode).ask(b"a")
    assert encode.calls == 3
    await Reader(cache, encode).ask(b"b")
    assert encode.calls == 4
    assert cache.size_bytes <= 700


async def test_what_there_is_no_room_for_is_left_to_the_caller() -> None:
    encode = Encoder()
    assert await Reader(small_cache(0), encode).ask(b"a") is None
    assert await Reader(small_cache(399), encode).ask(b"a") is None
    cache = small_cache(700)
    encode.gate.clear()
    asking = asyncio.create_task(Reader(cache, encode).ask(b"a"))
    await encode.has_begun.wait()
    assert await Reader(cache, encode).ask(b"b") is None  # beside one at work
    encode.gate.set()
    assert await asking == SUMMARY
    assert await Reader(cache, encode).ask(b"b") == SUMMARY
    unbound = cache.without_bound()
    assert await Reader(unbound, encode).ask(b"z", tokens=10**6) == SUMMARY


async def test_a_tier_that_is_away_is_asked_again_next_time() -> None:
    cache = small_cache()
    away = Encoder(error=Unavailable("gone", reason=Reason.VISION_UNAVAILABLE))
    with pytest.raises(Unavailable):
        await Reader(cache, away).ask(b"a")
    assert await Reader(cache, Encoder()).ask(b"a") == SUMMARY
