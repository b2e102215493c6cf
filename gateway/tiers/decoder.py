"""The gateway's end of the wire to the decoder tier. A started stream is never retried."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from gateway.answer.events import Admitted, DecoderEnd, OutputToken
from gateway.prompt.builder import PreparedPrompt
from gateway.request.constraint import ConstraintSpec
from gateway.request.deadlines import seconds_left
from gateway.request.job import ChatJob
from gateway.tiers.convert import (
    admitted_from_proto,
    decoder_error_for_client,
    end_from_proto,
    start_to_proto,
    tokens_from_proto,
)
from gateway.tiers.router import Endpoint, Router
from gateway.tiers.tier import LOOK_TIMEOUT_S, Report, TierClient
from gateway.tools.form import AnswerForm
from protos.process import tracing
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2
from protos.wire.credentials import CredentialFiles
from protos.wire.errors import Reason, ServiceError, from_rpc_error


class CallEnded(Exception):
    """The other side ended the call; reading from it tells why."""


class DecoderClient(TierClient):
    """Generates tokens."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        bundle_digest: str,
        watch_interval_s: float,
        files: CredentialFiles | None = None,
    ) -> None:
        super().__init__(
            Router("decoder", addresses, unavailable=Reason.DECODER_UNAVAILABLE),
            report=_report,
            bundle_digest=bundle_digest,
            watch_interval_s=watch_interval_s,
            files=files,
        )

    @asynccontextmanager
    async def generate(
        self,
        endpoint: Endpoint,
        job: ChatJob,
        prompt: PreparedPrompt,
        form: AnswerForm,
        *,
        choice: int,
    ) -> AsyncIterator["GenerateCall"]:
        """Opens a Generate stream for one choice of a job; leaving the block cancels it."""
        start = start_to_proto(job, prompt, form, choice=choice, bundle_digest=self.bundle_digest)
        stub = decoder_pb2_grpc.DecoderServiceStub(self.channels[endpoint])
        span = tracing.current().child("generate", tracing.Kind.CLIENT)
        call = stub.Generate(
            timeout=seconds_left(job.deadline.complete_by_s),
            metadata=tracing.metadata(start.request_id, span),
        )
        endpoint.calls += 1
        try:
            generating = GenerateCall(
                call, lambda error: self.note_failure(endpoint, error), form.constraint
            )
            # A call that failed at once tells why when it is read.
            with suppress(CallEnded):
                await generating.send(decoder_pb2.GenerateRequest(start=start))
            yield generating
        finally:
            call.cancel()
            endpoint.calls -= 1
            span.close()


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
    """

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall[Any, Any],
        on_failure: Callable[[grpc.RpcError], None],
        constraint: ConstraintSpec | None,
    ) -> None:
        self._call = call
        self._constraint = constraint
        self._messages = aiter(call)
        self._on_failure = on_failure
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

    async def admitted(self) -> Admitted:
        """The first message.

        Raises:
            ServiceError: as `read`.
        """
        message = await self._next()
        if message.WhichOneof("payload") != "admission":
            raise _broken_contract()
        return admitted_from_proto(message.admission)

    async def read(self) -> tuple[OutputToken, ...] | DecoderEnd:
        """The next message after the first: tokens, or how the sequence ended.

        Raises:
            ServiceError: what the decoder answered, DECODER_UNAVAILABLE when it vanished, or
                DATA_LOSS when the stream ended early or is not as agreed.
        """
        message = await self._next()
        match message.WhichOneof("payload"):
            case "tokens":
                return tokens_from_proto(message.tokens)
            case "completion":
                return end_from_proto(message.completion)
            case _:
                raise _broken_contract()

    async def _next(self) -> decoder_pb2.GenerateResponse:
        try:
            message: decoder_pb2.GenerateResponse | None = await anext(self._messages, None)
        except grpc.RpcError as error:
            self._on_failure(error)
            failure = from_rpc_error(error, unavailable=Reason.DECODER_UNAVAILABLE)
            raise decoder_error_for_client(failure, self._constraint) from error
        if message is None:
            raise ServiceError(
                "the decoder ended the stream before the answer was complete",
                reason=Reason.DATA_LOSS,
            )
        return message


def _broken_contract() -> ServiceError:
    return ServiceError("the decoder broke its contract", reason=Reason.DATA_LOSS)
