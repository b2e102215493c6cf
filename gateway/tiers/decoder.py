"""The gateway's end of the wire to the decoder tier: one call, and how it was lost.

Going on elsewhere is `gateway.generation`'s business.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from gateway.answer.events import Admitted, DecoderEnd, OutputToken
from gateway.fleet.discovery import Discovery
from gateway.fleet.router import Endpoint, Router, State
from gateway.prompt.builder import PreparedPrompt
from gateway.request.constraint import ConstraintSpec
from gateway.request.deadlines import seconds_left
from gateway.request.job import ChatJob
from gateway.tiers.company import Company
from gateway.tiers.convert import (
    Progress,
    admitted_from_proto,
    decoder_error_for_client,
    end_from_proto,
    start_to_proto,
    tokens_from_proto,
)
from gateway.tiers.tier import LOOK_TIMEOUT_S, Report, TierClient
from gateway.tiers.watch import Watching
from gateway.tools.form import AnswerForm
from protos.process import tracing
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2
from protos.wire.credentials import CredentialFiles
from protos.wire.errors import Reason, ServiceError, from_rpc_error

# What a call ends with whose decoder is gone, is not ready yet, stops, or was cut off.
_GONE = (Reason.DECODER_UNAVAILABLE, Reason.LOADING, Reason.DRAINING, Reason.CANCELLED)

STATUS_DETAILS_KEY = "grpc-status-details-bin"

# How much later than others an admission may come whose grammar must be compiled first; a decoder
# gives one two seconds in a helper process, and one call may find others there.
GRAMMAR_S = 10.0

# Messages of a call that are read ahead of the answer; then the decoder's own waits.
MAX_AHEAD = 256

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


class DecoderClient(TierClient):
    """Generates tokens."""

    def __init__(
        self,
        discovery: Discovery,
        *,
        bundle_digest: str,
        watching: Watching,
        files: CredentialFiles | None = None,
    ) -> None:
        super().__init__(
            Router("decoder", unavailable=Reason.DECODER_UNAVAILABLE),
            discovery,
            report=_report,
            bundle_digest=bundle_digest,
            watching=watching,
            files=files,
        )
        self._company = Company()

    @asynccontextmanager
    async def generate(
        self,
        endpoint: Endpoint,
        job: ChatJob,
        prompt: PreparedPrompt,
        form: AnswerForm,
        *,
        choice: int,
        progress: Progress | None = None,
    ) -> AsyncIterator["GenerateCall"]:
        """Opens a Generate stream for one choice of a job; leaving the block cancels it.

        Args:
            endpoint: Where.
            job: What is asked.
            prompt: The same as token ids.
            form: What the answer must look like.
            choice: Which of the job's.
            progress: How far another decoder came with it.
        """
        start = start_to_proto(
            job,
            prompt,
            form,
            choice=choice,
            bundle_digest=self.bundle_digest,
            progress=progress,
        )
        stub = self.channels.stub(endpoint, decoder_pb2_grpc.DecoderServiceStub)
        span = tracing.current().child("generate", tracing.Kind.CLIENT)
        call = stub.Generate(
            timeout=seconds_left(job.deadline.complete_by_s),
            metadata=tracing.metadata(start.request_id, span),
        )
        endpoint.calls += 1
        grace_s = 0.0 if form.constraint is None else GRAMMAR_S
        generating = GenerateCall(
            call,
            lambda error: self.note_failure(endpoint, error),
            form.constraint,
            lambda word: self.first_word(endpoint, word, grace_s=grace_s),
            self._company,
        )
        try:
            # A call that failed at once tells why when it is read.
            with suppress(CallEnded):
                await generating.send(decoder_pb2.GenerateRequest(start=start))
            yield generating
        finally:
            generating.close()
            endpoint.calls -= 1
            span.close()

    async def is_there(self, endpoint: Endpoint) -> bool:
        """Whether an address answers in time; one that does not is unreachable until looked at."""
        stub = self.channels.stub(endpoint, decoder_pb2_grpc.DecoderServiceStub)
        try:
            await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=LOOK_TIMEOUT_S)
        except grpc.RpcError:
            self._note(endpoint, State.UNREACHABLE)
            return False
        return True


async def _report(channel: grpc.aio.Channel) -> Report:
    stub = decoder_pb2_grpc.DecoderServiceStub(channel)
    request = decoder_pb2.GetDecoderModelInfoRequest()
    info = await stub.GetModelInfo(request, timeout=LOOK_TIMEOUT_S)
    load = await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=LOOK_TIMEOUT_S)
    return Report(
        bundle_digest=info.bundle_digest,
        max_context=info.max_context,
        running=load.running_count,
        waiting=load.waiting_count,
        kv_usage=load.kv_token_count / max(1, load.kv_token_capacity),
    )


class GenerateCall:
    """One Generate stream. Sends may come from several tasks, reads from one.

    Args:
        call: The stream.
        on_failure: Told how the transport failed.
        constraint: What the stream's start holds, in the client's words for errors.
        first_word: Waits for the first message; see `TierClient.first_word`.
        company: Says how long tokens wait for others.
    """

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Any, Any],
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
        # What was read ahead: messages, the end, or how the call failed.
        self._ahead: asyncio.Queue[_Read] = asyncio.Queue(maxsize=MAX_AHEAD)
        self._held: _Read = None  # taken from there, but not looked at yet
        self._reading: asyncio.Task[None] | None = None
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
        async with self._sending:
            try:
                await self._call.write(message)
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                raise CallEnded from error

    async def finish_sending(self) -> None:
        """Tells the decoder that all features are sent."""
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self._call.done_writing()

    def close(self) -> None:
        """Reads no further, and cancels the call."""
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()

    async def admitted(self) -> Admitted:
        """The first message.

        Raises:
            ServiceError: as `read`.
        """
        try:
            message = _message(await self._first_word(self._call.read()))
        except grpc.RpcError as error:
            raise self._failure(error) from error
        if message.WhichOneof("payload") != "admission":
            raise _broken_contract()
        return admitted_from_proto(message.admission)

    async def read(self) -> tuple[OutputToken, ...] | DecoderEnd:
        """What comes after the first message: tokens, or how the sequence ended.

        Where tokens wait for company, those that have come meanwhile are taken together.

        Raises:
            DecoderLost: it vanished, or is stopping.
            ServiceError: what the decoder answered, or DATA_LOSS when the stream ended early or
                is not as agreed.
        """
        wait_s = self._company.wait_s()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_ahead())
        elif wait_s:
            await asyncio.sleep(wait_s)
        message = await self._next()
        match message.WhichOneof("payload"):
            case "tokens":
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
        while not self._ahead.empty():
            message = self._ahead.get_nowait()
            if (
                not isinstance(message, decoder_pb2.GenerateResponse)
                or message.WhichOneof("payload") != "tokens"
            ):
                self._held = message
                return
            yield from tokens_from_proto(message.tokens)

    async def _read_ahead(self) -> None:
        ended = False
        while not ended:
            try:
                read: _Read = await self._call.read()
            except grpc.RpcError as error:
                read = error
            ended = not isinstance(read, decoder_pb2.GenerateResponse)
            await self._ahead.put(read)

    async def _next(self) -> decoder_pb2.GenerateResponse:
        """The next message of what is read ahead."""
        message, self._held = self._held, None
        if message is None:
            message = await self._ahead.get()
        if isinstance(message, grpc.RpcError):
            raise self._failure(message) from message
        return _message(message)

    def _failure(self, error: grpc.RpcError) -> Exception:
        self._on_failure(error)
        failure = from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE)
        if _is_lost(error, failure):
            return DecoderLost(failure)
        return decoder_error_for_client(failure, self._constraint)


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
