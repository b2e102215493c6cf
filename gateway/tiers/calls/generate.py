"""A Generate call: what is sent into it, and what comes out of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc

from gateway.answer.events import Admitted, DecoderEnd, OutputToken
from gateway.request.constraint import ConstraintSpec
from gateway.tiers.calls.ahead import ReadAhead
from gateway.tiers.calls.company import Company
from gateway.tiers.convert import (
    admitted_from_proto,
    decoder_error_for_client,
    end_from_proto,
    tokens_from_proto,
)
from protos.tandem.v1 import decoder_pb2, tensor_pb2
from protos.wire.errors import Reason, ServiceError, from_rpc_error

# What a call ends with whose decoder is gone, is not ready yet, stops, or was cut off.
_GONE = (Reason.DECODER_UNAVAILABLE, Reason.LOADING, Reason.DRAINING, Reason.CANCELLED)

STATUS_DETAILS_KEY = "grpc-status-details-bin"

_Read = object  # a message, how the call failed, or anything else for its end


class CallEnded(Exception):
    """The other side ended the call; reading from it tells why."""


class DecoderLost(Exception):
    """The decoder or the way to it is gone; the same tokens can be had from another.

    Args:
        error: What the client is told where there is none.
    """

    def __init__(self, error: ServiceError) -> None:
        super().__init__(error.reason.value)
        self.error = error


class GenerateCall:
    """One Generate stream. Sends may come from several tasks, reads from one.

    Args:
        call: The stream; one that takes no more messages is never given any.
        on_failure: Told how the transport failed.
        constraint: What the stream's start holds, in the client's words for errors.
        first_word: Waits for the first message; see `TierClient.first_word`.
        company: Says how long tokens wait for others.
    """

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Any, Any] | grpc.aio.UnaryStreamCall[Any, Any],
        on_failure: Callable[[grpc.RpcError], None],
        constraint: ConstraintSpec | None,
        first_word: Callable[[Awaitable[_Read]], Awaitable[_Read]],
        company: Company,
    ) -> None:
        self._call = call
        self._constraint = constraint
        self._first_word = first_word
        self._company = company
        self._on_failure = on_failure
        # Messages, the end, or how the call failed.
        self._ahead = ReadAhead[_Read](self._read_one, _is_last)
        self._has_begun = False
        self._sending = asyncio.Lock()  # gRPC takes one message at a time

    async def send_features(self, span_index: int, chunk: tensor_pb2.FeatureChunk) -> None:
        """Passes on features; waits while the decoder is not reading.

        Raises:
            CallEnded: the decoder ended the call.
        """
        features = decoder_pb2.SpanFeatures(span_index=span_index, chunk=chunk)
        await self.send(decoder_pb2.GenerateRequest(features=features))

    async def send(self, message: decoder_pb2.GenerateRequest) -> None:
        """Sends one message.

        Raises:
            CallEnded: the decoder ended the call.
        """
        if isinstance(self._call, grpc.aio.UnaryStreamCall):
            raise _broken_contract()  # it wants features of a prompt that has none
        async with self._sending:
            try:
                await self._call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                raise CallEnded from error

    async def finish_sending(self) -> None:
        """Tells the decoder that all features are sent."""
        if isinstance(self._call, grpc.aio.UnaryStreamCall):
            return
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def close(self) -> None:
        """Reads no further, and cancels the call."""
        self._ahead.stop()
        self._call.cancel()

    async def admitted(self, within_s: float | None = None) -> Admitted:
        """The first message.

        Args:
            within_s: How long it is waited for; None: as long as such messages may take.

        Raises:
            NotYet: it did not come in time, and may still.
            ServiceError: as `read`.
        """
        try:
            message = _message(await self._first_word(self._next(within_s)))
        except grpc.RpcError as error:
            raise self._failure(error) from error
        if message.WhichOneof("payload") != "admission":
            raise _broken_contract()
        return admitted_from_proto(message.admission)

    async def read(self, within_s: float | None = None) -> tuple[OutputToken, ...] | DecoderEnd:
        """What comes after the first message: tokens, or how the sequence ended.

        Where tokens wait for company, those that have come meanwhile are taken together.

        Args:
            within_s: How long it is waited for; None: for ever.

        Raises:
            NotYet: nothing came in time.
            DecoderLost: it vanished, or is stopping.
            ServiceError: what the decoder answered, or DATA_LOSS when the stream ended early or
                is not as agreed.
        """
        wait_s = self._company.wait_s()
        self._ahead.all_wanted()
        if wait_s and self._has_begun:
            await asyncio.sleep(wait_s)
        message = await self._next(within_s)
        match message.WhichOneof("payload"):
            case "tokens":
                self._has_begun = True
                tokens = tokens_from_proto(message.tokens)
                if wait_s:
                    tokens = (*tokens, *self._more_tokens())
                self._company.came(len(tokens))
                return tokens
            case "completion":
                return end_from_proto(message.completion)
            case _:
                raise _broken_contract()

    def _more_tokens(self) -> Iterator[OutputToken]:
        """Those that are here already, up to whatever else comes."""
        for message in self._ahead.while_there(_holds_tokens):
            yield from tokens_from_proto(_message(message).tokens)

    async def _read_one(self) -> _Read:
        try:
            return await self._call.read()
        except grpc.RpcError as error:
            return error

    async def _next(self, within_s: float | None) -> decoder_pb2.GenerateResponse:
        message = await self._ahead.next(within_s)
        if isinstance(message, grpc.RpcError):
            raise self._failure(message) from message
        return _message(message)

    def _failure(self, error: grpc.RpcError) -> Exception:
        self._on_failure(error)
        failure = from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE)
        if _is_lost(error, failure):
            return DecoderLost(failure)
        return decoder_error_for_client(failure, self._constraint)


def _is_last(read: _Read) -> bool:
    """Whether nothing of an answer comes behind: what ends the call then is of no interest."""
    if not isinstance(read, decoder_pb2.GenerateResponse):
        return True
    return bool(read.WhichOneof("payload") == "completion")


def _holds_tokens(read: _Read) -> bool:
    return isinstance(read, decoder_pb2.GenerateResponse) and read.WhichOneof("payload") == "tokens"


def _message(read: _Read) -> decoder_pb2.GenerateResponse:
    if isinstance(read, decoder_pb2.GenerateResponse):
        return read
    raise ServiceError(
        "the decoder ended the stream before the answer was complete", reason=Reason.DATA_LOSS
    )


def _is_lost(error: grpc.RpcError, failure: ServiceError) -> bool:
    """Whether the decoder, or the connection to it, ended the call for no fault of the request's.

    A connection that breaks while something is sent is told as INTERNAL, by our own end of it:
    without the details that every error of a decoder's has.
    """
    if failure.reason in _GONE:
        return True
    details = error.trailing_metadata() or () if isinstance(error, grpc.aio.AioRpcError) else ()
    is_told = any(key == STATUS_DETAILS_KEY for key, _ in details)
    return failure.reason is Reason.INTERNAL and not is_told


def _broken_contract() -> ServiceError:
    return ServiceError("the decoder broke its contract", reason=Reason.DATA_LOSS)
