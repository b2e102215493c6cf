"""The gRPC door: ChatService on the same pipeline as HTTP, with token ids and logits."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, aclosing
from typing import Any

import grpc

from gateway.request.ids import request_id
from gateway.rpc.access import authorization
from gateway.rpc.continuation import Continuation, prompt_from_proto
from gateway.rpc.parsing import Parsing
from gateway.rpc.reading import conversation_from_proto, question_from_proto
from gateway.rpc.telling import event_to_proto, prompt_to_proto
from gateway.service import ChatService, OpenRequest
from protos.process.tracing import TRACEPARENT
from protos.tandem.v1 import gateway_pb2, gateway_pb2_grpc
from protos.wire.channels import REQUEST_ID_KEY
from protos.wire.errors import ServiceError, reporting_errors

Context = grpc.aio.ServicerContext[Any, Any]


class ChatServicer(gateway_pb2_grpc.ChatServiceServicer):
    """Converts messages; the service does the work.

    Args:
        service: Of the gateway.
        parsing: Tells messages that could not be parsed from others.
        idle_s: Longest silence of a caller in the midst of its request.
    """

    def __init__(self, service: ChatService, parsing: Parsing, *, idle_s: float) -> None:
        self._service = service
        self._parsing = parsing
        self._idle_s = idle_s

    async def Complete(
        self, request: gateway_pb2.ChatRequest, context: Context
    ) -> AsyncIterator[gateway_pb2.ChatChunk]:
        """Answers one conversation; see the contract in gateway.proto."""
        async with reporting_errors(context):
            with self._opened(context, request.request_id) as opened:
                self._parsing.check(request)
                opened.take_place(request.ByteSize())
                question = question_from_proto(request)
                events = opened.answer(question, client_left_s=context.time_remaining())
                async with aclosing(events):
                    async for _, event in events:
                        yield event_to_proto(event)

    async def Prepare(
        self, request: gateway_pb2.PrepareRequest, context: Context
    ) -> gateway_pb2.PreparedPrompt:
        """Prepares one conversation; see the contract in gateway.proto."""
        async with reporting_errors(context):
            with self._opened(context) as opened:
                self._parsing.check(request)
                opened.take_place(request.ByteSize())
                conversation = conversation_from_proto(request)
                prompt = await opened.prepare(request.model, conversation)
                return prompt_to_proto(prompt, self._service.pipeline.feature_shape)

    async def Continue(
        self, request_iterator: AsyncIterator[gateway_pb2.ContinueRequest], context: Context
    ) -> None:
        """Answers a prompt with the caller's features; see the contract in gateway.proto."""
        async with reporting_errors(context):
            stream = Continuation(context, idle_s=self._idle_s)
            try:
                await self._continued(stream, context)
            except ServiceError:
                await stream.linger()
                raise

    async def _continued(self, stream: Continuation, context: Context) -> None:
        start = await stream.start()
        with self._opened(context, start.request_id) as opened:
            opened.take_place(start.ByteSize())
            events = opened.continued(
                question_from_proto(start),
                prompt_from_proto(start),
                stream.chunks(),
                client_left_s=context.time_remaining(),
            )
            async with aclosing(events):
                async for _, event in events:
                    await context.write(event_to_proto(event))

    def _opened(self, context: Context, wanted_id: str = "") -> AbstractContextManager[OpenRequest]:
        pairs = context.invocation_metadata()
        metadata = {key: value for key, value in pairs or () if isinstance(value, str)}
        return self._service.request(
            "grpc",
            request_id=request_id(wanted_id or metadata.get(REQUEST_ID_KEY)),
            authorization=authorization(pairs),
            traceparent=metadata.get(TRACEPARENT),
        )
