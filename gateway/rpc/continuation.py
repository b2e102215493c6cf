"""The stream of a Continue call: a prepared prompt, then its features."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import numpy as np

from gateway.brought.features import BroughtChunk
from gateway.brought.prompt import BroughtPrompt, BroughtSpan
from protos.media.images import Grid
from protos.tandem.v1 import gateway_pb2
from protos.wire import tensors
from protos.wire.errors import DeadlineExceeded, InvalidRequest, Reason
from protos.wire.features import VALUE_BYTES

DIGEST_BYTES = 32
LINGER_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]


class Continuation:
    """Reads the messages of one call, each when it is asked for, so that a caller sends no faster
    than it is dealt with.

    Args:
        context: Of the call.
        idle_s: Longest silence of a caller that owes a message.
    """

    def __init__(self, context: Context, *, idle_s: float) -> None:
        self._context = context
        self._idle_s = idle_s
        self._may_read = True  # not behind the end, nor while a read that was given up hangs

    async def start(self) -> gateway_pb2.ContinueStart:
        """The first message.

        Raises:
            InvalidRequest: it is none, or another.
            DeadlineExceeded: none came for long.
        """
        message = await self._read("start")
        if message is None or message.WhichOneof("payload") != "start":
            raise InvalidRequest("the first message is not start, expected start", param="start")
        return message.start

    async def chunks(self) -> AsyncIterator[BroughtChunk]:
        """What follows, until the caller half-closes.

        Raises:
            InvalidRequest: a message is no features.
            DeadlineExceeded: none came for long.
        """
        while (message := await self._read("features")) is not None:
            if message.WhichOneof("payload") != "features":
                raise InvalidRequest(
                    "a message behind start is not features, expected features", param="features"
                )
            yield BroughtChunk(message.features.span_index, message.features.chunk)

    async def linger(self) -> None:
        """Reads on for a moment, before the call ends early.

        Clients that write while a call ends may fail at that, and miss why it ended.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while self._may_read:
                    await self._message()

    async def _read(self, what: str) -> gateway_pb2.ContinueRequest | None:
        try:
            async with asyncio.timeout(self._idle_s):
                return await self._message()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no {what} and no end of the stream came for {self._idle_s:g} s", param=what
            ) from error

    async def _message(self) -> gateway_pb2.ContinueRequest | None:
        self._may_read = False
        message = await self._context.read()
        self._may_read = isinstance(message, gateway_pb2.ContinueRequest)
        return message if isinstance(message, gateway_pb2.ContinueRequest) else None  # else EOF


def prompt_from_proto(start: gateway_pb2.ContinueStart) -> BroughtPrompt:
    """The prompt of a call, its lists put together; see `gateway.brought.prompt.prepared`.

    Raises:
        InvalidRequest: lists of different lengths, or a tensor, dtype or digest that is none.
    """
    prompt = start.prompt
    count = len(prompt.visual_spans)
    for field, listed in (
        ("prompt.grid_thw", prompt.grid_thw),
        ("span_features", start.span_features),
    ):
        if len(listed) != count:
            raise InvalidRequest(
                f"{field} has {len(listed)} entries, expected the {count} of prompt.visual_spans",
                reason=Reason.INVALID_SPAN,
                param=field,
            )
    positions = tensors.int32_from_proto(
        prompt.position_ids, field="prompt.position_ids", shape=(3, len(prompt.input_ids))
    )
    return BroughtPrompt(
        input_ids=np.array(prompt.input_ids, dtype=np.int32),
        position_ids=positions,
        position_delta=prompt.position_delta,
        spans=tuple(_span(start, at) for at in range(count)),
    )


def _span(start: gateway_pb2.ContinueStart, at: int) -> BroughtSpan:
    span, grid = start.prompt.visual_spans[at], start.prompt.grid_thw[at]
    brought, field = start.span_features[at], f"span_features[{at}]"
    if brought.dtype not in VALUE_BYTES:
        expected = ", ".join(map(tensors.dtype_name, VALUE_BYTES))
        raise InvalidRequest(
            f"{field}.dtype is {tensors.dtype_name(brought.dtype)}, expected one of {expected}",
            reason=Reason.UNSUPPORTED_DTYPE,
            param=f"{field}.dtype",
        )
    if len(brought.digest) != DIGEST_BYTES:
        raise InvalidRequest(
            f"{field}.digest has {len(brought.digest)} bytes, expected the {DIGEST_BYTES} of a"
            " SHA-256",
            param=f"{field}.digest",
        )
    return BroughtSpan(
        offset=span.offset,
        length=span.length,
        grid=Grid(grid.t, grid.h, grid.w),
        dtype=brought.dtype,
        digest=brought.digest,
    )
