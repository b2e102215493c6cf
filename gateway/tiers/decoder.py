"""The gateway's end of the wire to the decoder tier: one call, and how it was lost.

Going on elsewhere is `gateway.generation`'s business.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from gateway.fleet.discovery import Discovery
from gateway.fleet.router import Endpoint, Router, State
from gateway.prompt.builder import PreparedPrompt
from gateway.request.deadlines import seconds_left
from gateway.request.job import ChatJob
from gateway.tiers.calls.company import Company
from gateway.tiers.calls.generate import CallEnded, GenerateCall
from gateway.tiers.convert import Progress, start_to_proto
from gateway.tiers.tier import LOOK_TIMEOUT_S, Report, TierClient
from gateway.tiers.watch import Watching
from gateway.tools.form import AnswerForm
from protos.process import tracing
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc
from protos.wire.credentials import CredentialFiles
from protos.wire.errors import Reason

# How much later than others an admission may come whose grammar must be compiled first; a decoder
# gives one two seconds in a helper process, and one call may find others there.
GRAMMAR_S = 10.0

_SERVICE = decoder_pb2.DESCRIPTOR.services_by_name["DecoderService"]
_GENERATE = f"/{_SERVICE.full_name}/Generate"


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
        stub = self.channels.stub(endpoint, _Stub)
        span = tracing.current().child("generate", tracing.Kind.CLIENT)
        request = decoder_pb2.GenerateRequest(start=start)
        timeout_s = seconds_left(job.deadline.complete_by_s)
        metadata = tracing.metadata(start.request_id, span)
        # A prompt without images has nothing to send behind its first message.
        call = (
            stub.Generate(timeout=timeout_s, metadata=metadata)
            if prompt.spans
            else stub.GenerateAlone(request, timeout=timeout_s, metadata=metadata)
        )
        endpoint.calls += 1
        grace_s = 0.0 if form.constraint is None else GRAMMAR_S
        begun_s = time.monotonic()
        generating = GenerateCall(
            call,
            lambda error: self.note_failure(endpoint, error),
            form.constraint,
            lambda word: self.first_word(endpoint, word, grace_s=grace_s, begun_s=begun_s),
            self._company,
        )
        try:
            if prompt.spans:
                # A call that failed at once tells why when it is read.
                with suppress(CallEnded):
                    await generating.send(request)
            yield generating
        finally:
            generating.close()
            endpoint.calls -= 1
            span.close()

    async def is_there(self, endpoint: Endpoint) -> bool:
        """Whether an address answers in time; one that does not is unreachable until looked at."""
        stub = self.channels.stub(endpoint, _Stub)
        try:
            await stub.GetLoad(decoder_pb2.GetLoadRequest(), timeout=LOOK_TIMEOUT_S)
        except grpc.RpcError:
            self._note(endpoint, State.UNREACHABLE)
            return False
        return True


class _Stub(decoder_pb2_grpc.DecoderServiceStub):
    """The decoder's, with one more way to call Generate.

    `GenerateAlone` sends one message and the end of the requests at once. To the decoder it is the
    same call; gRPC's client takes a third of the steps for it, each a change of threads.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        super().__init__(channel)  # type: ignore[no-untyped-call]  # as generated
        self.GenerateAlone: Any = channel.unary_stream(
            _GENERATE,
            request_serializer=decoder_pb2.GenerateRequest.SerializeToString,
            response_deserializer=decoder_pb2.GenerateResponse.FromString,
        )


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
