"""Tokens that wait for others."""

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from gateway.answer.events import DecoderEnd
from gateway.tiers.calls.ahead import MAX_AHEAD
from gateway.tiers.calls.company import LONGEST_S, MANY, SOME, WINDOW_S, Company
from gateway.tiers.calls.generate import DecoderLost, GenerateCall
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import Reason, ServiceError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("rate", "wait_s"),
    [
        (0, 0.0),
        (SOME, 0.0),
        ((SOME + MANY) / 2, LONGEST_S / 2),
        (MANY, LONGEST_S),
        (1e6, LONGEST_S),
    ],
)
def test_the_more_tokens_come_the_longer_each_waits(rate: float, wait_s: float) -> None:
    clock = Clock()
    waiting = Company(clock=clock)
    clock.now_s = WINDOW_S
    waiting.came(round(rate * WINDOW_S))
    assert waiting.wait_s() == pytest.approx(wait_s, abs=1e-4)
    clock.now_s = 100.0
    waiting.came(1)
    assert waiting.wait_s() == 0


class Call:
    """A call whose messages are there, or come when they are put."""

    def __init__(self, *messages: object) -> None:
        self.messages: asyncio.Queue[object] = asyncio.Queue()
        self.taken = 0
        self.is_cancelled = False
        for message in messages:
            self.messages.put_nowait(message)

    async def read(self) -> object:
        message = await self.messages.get()
        self.taken += 1
        if isinstance(message, Exception):
            raise message
        return message

    def cancel(self) -> None:
        self.is_cancelled = True


def token(number: int) -> decoder_pb2.GenerateResponse:
    return decoder_pb2.GenerateResponse(tokens=decoder_pb2.TokenChunk(token_ids=[number]))


END = decoder_pb2.GenerateResponse(
    completion=decoder_pb2.Completion(finish_reason=decoder_pb2.FINISH_REASON_STOP)
)
ADMISSION = decoder_pb2.GenerateResponse(admission=decoder_pb2.Admission())


async def at_once(word: Awaitable[object]) -> object:
    return await word


def reading(call: Call, failures: list[grpc.RpcError]) -> GenerateCall:
    company = Company()
    return GenerateCall(call, failures.append, None, at_once, company)  # type: ignore[arg-type]


async def ids(call: GenerateCall) -> list[int]:
    read = await call.read()
    assert not isinstance(read, DecoderEnd)
    return [each.token_id for each in read]


async def test_tokens_that_are_there_are_taken_together_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Company, "wait_s", lambda _: 0.01)
    call = Call(ADMISSION, *map(token, range(20)), END)
    generating = reading(call, [])
    await generating.admitted()
    assert call.taken == 1  # nothing is read ahead of the admission
    taken = await ids(generating)
    while len(taken) < 20:
        more = await ids(generating)
        assert len(more) > 1
        taken += more
    assert taken == list(range(20))
    assert isinstance(await generating.read(), DecoderEnd)
    generating.close()
    assert call.is_cancelled


async def test_a_gateway_that_has_time_sends_every_token_alone() -> None:
    generating = reading(Call(ADMISSION, *map(token, range(5)), END), [])
    await generating.admitted()
    for number in range(5):
        await asyncio.sleep(0.01)
        assert await ids(generating) == [number]
    assert isinstance(await generating.read(), DecoderEnd)


async def test_a_failure_comes_behind_the_tokens_before_it() -> None:
    nothing = grpc.aio.Metadata()
    broken = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing)
    failures: list[grpc.RpcError] = []
    generating = reading(Call(ADMISSION, token(1), token(2), broken), failures)
    await generating.admitted()
    taken = []
    with pytest.raises(DecoderLost):
        while True:
            taken += await ids(generating)
    assert (taken, failures) == ([1, 2], [broken])
    ended = reading(Call(ADMISSION, token(1), grpc.aio.EOF), [])
    await ended.admitted()
    assert await ids(ended) == [1]
    with pytest.raises(ServiceError) as caught:
        await ended.read()
    assert caught.value.reason is Reason.DATA_LOSS


async def test_only_so_much_is_read_ahead() -> None:
    call = Call(ADMISSION, *map(token, range(4 * MAX_AHEAD)))
    generating = reading(call, [])
    await generating.admitted()
    taken = await ids(generating)
    await asyncio.sleep(0.05)
    assert call.taken - len(taken) <= MAX_AHEAD + 3
    generating.close()
