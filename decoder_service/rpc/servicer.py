"""DecoderService over gRPC: reads requests and features, writes admission, tokens, completion."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import grpc

from decoder_service.cache.memory import MemoryPlan
from decoder_service.engine.engine import Engine
from decoder_service.engine.stream import SequenceStream
from decoder_service.grammar.compiler import GrammarCompiler
from decoder_service.grammar.deferred import Deferred
from decoder_service.grammar.state import GrammarState
from decoder_service.rpc.constraint import grammar_from_proto
from decoder_service.rpc.features import FeatureIntake, feature_rows_from_proto
from decoder_service.rpc.metrics import DecoderMetrics
from decoder_service.rpc.request import RequestLimits, request_from_proto
from decoder_service.rpc.responses import (
    admission_to_proto,
    completion_to_proto,
    tokens_to_proto,
)
from decoder_service.sequence.request import Completion, Constraint, Request, Token
from protos.process.request_log import RequestRecord, recording
from protos.process.tracing import TRACEPARENT
from protos.tandem.v1 import decoder_pb2, decoder_pb2_grpc, tensor_pb2
from protos.wire.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    ServiceError,
    reporting_errors,
)

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[decoder_pb2.GenerateRequest, decoder_pb2.GenerateResponse]


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    """Answers DecoderService.

    Args:
        engine: Runs the sequences.
        limits: What requests may ask for.
        grammars: Compiles what outputs must look like.
        plan: What the KV cache holds.
        features_timeout_s: Longest pause of a client that owes a message.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        limits: RequestLimits,
        grammars: GrammarCompiler,
        plan: MemoryPlan,
        features_timeout_s: float,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._grammars = grammars
        self._plan = plan
        self._features_timeout_s = features_timeout_s
        self._request_ids: set[str] = set()
        self.metrics = DecoderMetrics(engine.load, plan)

    async def GetModelInfo(
        self,
        request: decoder_pb2.GetDecoderModelInfoRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> tensor_pb2.ModelInfo:
        """Says which model this tier serves."""
        manifest = self._limits.bundle.manifest
        return tensor_pb2.ModelInfo(
            bundle_digest=self._limits.bundle.digest,
            family=manifest.family,
            model_id=manifest.model_id,
            hidden_size=manifest.text.hidden_size,
            deepstack_level_count=manifest.deepstack_level_count,
            max_context=self._plan.max_context,
        )

    async def GetLoad(
        self, request: decoder_pb2.GetLoadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> decoder_pb2.DecoderLoad:
        """Says how busy this process is."""
        load = self._engine.load()
        return decoder_pb2.DecoderLoad(
            running_count=load.running_count,
            waiting_count=load.waiting_count,
            slot_count=self._plan.max_sequences,
            kv_token_count=load.kv_token_count,
            kv_token_capacity=self._plan.kv_tokens,
            cached_token_count=load.cached_token_count,
            preemption_count=load.preemption_count,
        )

    async def Generate(
        self, request_iterator: AsyncIterator[decoder_pb2.GenerateRequest], context: Context
    ) -> None:
        """Generates one sequence; see decoder.proto for the conversation."""
        async with reporting_errors(context):
            pairs = dict(context.invocation_metadata() or ())
            with recording(
                "decoder",
                metrics=self.metrics,
                method="tandem.v1.DecoderService/Generate",
                traceparent=str(pairs.get(TRACEPARENT)),
            ) as record:
                await self._generate(context, record)

    async def _generate(self, context: Context, record: RequestRecord) -> None:
        start = await self._read_start(context)
        request = request_from_proto(start, self._limits)
        record.request_id = request.request_id
        record.note(prompt_tokens=request.prompt_length)
        if len(request.output_ids):
            record.note(resumed_tokens=len(request.output_ids))
        if start.HasField("constraint"):
            request = replace(request, constraint=await self._constraint(start))
        with self._claiming(request.request_id), self._engine.submit(request) as stream:
            admission = await stream.admission()
            record.note(cached_tokens=admission.cached_tokens)
            await context.write(admission_to_proto(admission))
            receiving = self._receive(context, request, admission.needed_spans, stream)
            intake = asyncio.create_task(receiving)
            try:
                await self._send(context, stream, record, len(request.output_ids))
            finally:
                intake.cancel()

    async def _constraint(self, start: decoder_pb2.GenerateStart) -> Constraint:
        """What the output must look like, compiled beside the running sequences."""
        grammar = grammar_from_proto(
            start.constraint,
            self._grammars.limits,
            ignore_eos=start.stop_conditions.ignore_eos,
            vocab_size=self._limits.bundle.manifest.text.vocab_size,
        )
        constraint = self._deferred(start, await self._grammars.constraint(grammar))
        await constraint.resume(start.output_ids)
        return constraint

    def _deferred(
        self, start: decoder_pb2.GenerateStart, state: GrammarState
    ) -> GrammarState | Deferred:
        after = start.constraint_after_token if start.HasField("constraint_after_token") else None
        begin = start.constraint_from_token if start.HasField("constraint_from_token") else None
        if after is None and begin is None:
            return state
        ends = self._limits.bundle.manifest.special_tokens.eos
        return Deferred(state, after=after, begin=begin, ends=ends)

    @contextlib.contextmanager
    def _claiming(self, request_id: str) -> Iterator[None]:
        if request_id in self._request_ids:
            raise AlreadyExists(
                "request_id is that of a request in flight, expected another",
                param="request_id",
            )
        self._request_ids.add(request_id)
        try:
            yield
        finally:
            self._request_ids.discard(request_id)

    async def _read_start(self, context: Context) -> decoder_pb2.GenerateStart:
        message = await self._read(context, "start", is_owed=True)
        if message is None or message.WhichOneof("payload") != "start":
            raise InvalidRequest("the first message is not start, expected start", param="start")
        return message.start

    async def _read(
        self, context: Context, what: str, *, is_owed: bool
    ) -> decoder_pb2.GenerateRequest | None:
        """The next message; None when the client has half-closed."""
        try:
            async with asyncio.timeout(self._features_timeout_s if is_owed else None):
                message = await context.read()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no {what} came for {self._features_timeout_s:g} s", param=what
            ) from error
        return message if isinstance(message, decoder_pb2.GenerateRequest) else None  # else EOF

    async def _receive(
        self, context: Context, request: Request, needed: tuple[int, ...], stream: SequenceStream
    ) -> None:
        """Takes features until the client half-closes; what goes wrong ends the stream."""
        try:
            # Features are taken only into a slot: what waits, waits in the transport, so that
            # memory is bounded by the slots.
            await stream.slot_granted.wait()
            await self._receive_features(context, request, needed, stream)
        except ServiceError as error:
            stream.put(error)
        except Exception:  # The task has no caller: without this the stream would hang.
            logger.exception("receiving features failed, request_id=%s", request.request_id)
            stream.put(InternalError("internal error"))

    async def _receive_features(
        self, context: Context, request: Request, needed: tuple[int, ...], stream: SequenceStream
    ) -> None:
        manifest = self._limits.bundle.manifest
        intake = FeatureIntake(
            request.spans,
            needed,
            level_count=1 + manifest.deepstack_level_count,
            hidden_size=manifest.text.hidden_size,
        )
        while True:
            message = await self._read(context, "features", is_owed=not intake.is_complete)
            if message is None:
                if not intake.is_complete:
                    raise intake.missing()
                return
            if message.WhichOneof("payload") != "features":
                raise InvalidRequest("a message is not features, expected features", param="start")
            intake.check_span(message.features.span_index)
            rows = feature_rows_from_proto(message.features, manifest.text.hidden_size)
            values = intake.add(rows)
            if values is not None:
                stream.set_features(rows.span_index, values)

    async def _send(
        self, context: Context, stream: SequenceStream, record: RequestRecord, count: int
    ) -> None:
        """Writes tokens as they come, those that came together in one message.

        Args:
            context: Of the call.
            stream: Where they come from.
            record: Is told how many there are.
            count: Tokens of the output that the client has already.
        """
        while True:
            events = await stream.next_events()
            tokens = [event for event in events if isinstance(event, Token)]
            if tokens:
                record.first_token()
                count += len(tokens)
                record.note(completion_tokens=count)  # of an answer that is cut short
                for group in _grouped(tokens):
                    await context.write(tokens_to_proto(group))
            last = events[-1]
            if isinstance(last, Completion):
                record.note(
                    completion_tokens=last.completion_tokens,
                    cached_tokens=last.cached_tokens,
                )
                record.took(
                    queue=last.timings.queue_ms,
                    prefill=last.timings.prefill_ms,
                    decode=last.timings.decode_ms,
                )
                record.ended(last.finish_reason.name.lower())
                await context.write(completion_to_proto(last))
                return


def _grouped(tokens: list[Token]) -> list[list[Token]]:
    """Tokens that travel in one message: all, but logits one by one, because they are large."""
    if tokens[0].logits is None:
        return [tokens]
    return [[token] for token in tokens]
