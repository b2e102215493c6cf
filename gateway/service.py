"""What both doors do for a request: key, place in the queue, model, tenant, deadline, log line.

A door converts its client's words into a `Question` and events into its client's words; the rest
is here.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace

from gateway.access.admission import Admission
from gateway.access.keys import Caller, KeyRing
from gateway.access.served import ServedModel
from gateway.access.tenants import Tenants
from gateway.answer.events import AnswerEnd, AnswerEvent
from gateway.brought.features import BroughtChunk, check_size
from gateway.brought.prompt import BroughtPrompt
from gateway.metrics import GatewayMetrics, TokenClock
from gateway.pipeline import Pipeline
from gateway.prompt.builder import PreparedPrompt
from gateway.request.conversation import Conversation, PlainPrompt
from gateway.request.deadlines import Patience
from gateway.request.job import ChatJob, Question
from gateway.request.media import Files, names_files, with_files
from gateway.request.sampling import with_presets
from gateway.request.traced import describe
from protos.process.request_log import RequestRecord, recording
from protos.wire.errors import Reason


class ChatService:
    """Opens requests; one object per process, for all doors."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        served: ServedModel,
        admission: Admission,
        patience: Patience,
        tenants: Tenants,
        keys: KeyRing,
        files: Files,
        metrics: GatewayMetrics,
    ) -> None:
        self.served = served
        self.pipeline = pipeline
        self.admission = admission
        self.patience = patience
        self.tenants = tenants
        self.keys = keys
        self.files = files
        self.metrics = metrics

    def authorize(self, authorization: str | None) -> Caller:
        """Whose request has this `Authorization` header.

        Raises:
            ServiceError: INVALID_API_KEY.
        """
        return self.keys.caller(authorization)

    @contextmanager
    def request(
        self,
        door: str,
        *,
        request_id: str,
        authorization: str | None,
        traceparent: str | None = None,
    ) -> Iterator["OpenRequest"]:
        """One request while the block runs; its log line is written when the block is left.

        Args:
            door: "http" or "grpc".
            request_id: Travels with every call made for it.
            authorization: The header of that name.
            traceparent: The header of that name.

        Raises:
            ServiceError: INVALID_API_KEY.
        """
        with (
            recording(
                "gateway", request_id, metrics=self.metrics, traceparent=traceparent, door=door
            ) as record,
            ExitStack() as held,
        ):
            caller = self.authorize(authorization)
            if caller.account.name:
                record.note(key=caller.account.name)
            yield OpenRequest(self, record, held, caller=caller)


class OpenRequest:
    """One request at work."""

    def __init__(
        self,
        service: ChatService,
        record: RequestRecord,
        held: ExitStack,
        *,
        caller: Caller,
    ) -> None:
        self._service = service
        self._record = record
        self._held = held
        self._api_key = caller.key
        self._account = caller.account
        self._arrived_s = time.monotonic()
        self._completion_tokens = 0
        self._clocks: dict[int, TokenClock] = {}  # by choice

    @property
    def tenant(self) -> bytes:
        """Names the key of the request, for what is kept apart by keys."""
        return self._service.tenants.salt(self._api_key, None)

    @property
    def whole_by_s(self) -> float:
        """When all of the request must be here, `time.monotonic()` seconds."""
        return self._arrived_s + self._service.patience.request_s

    def take_place(self, size_bytes: int) -> None:
        """Takes a place among the requests at work, before anything is done for this one.

        Raises:
            Unavailable: DRAINING, the process takes no new requests.
            Overloaded: the gateway is full, or this key has its share of it.
            RateLimited: this key has made its requests of the last minute.
        """
        tenant, most = self._service.tenants.name(self._api_key), self._account.limits.max_in_flight
        slot = self._service.admission.slot(size_bytes, tenant=tenant, most=most)
        self._held.enter_context(slot)
        self._held.enter_context(self._account.request())

    async def answer(
        self, question: Question, *, client_left_s: float | None = None
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        """Yields (choice index, event) as the answer grows; see `Pipeline.answer`.

        Args:
            question: What the client asks.
            client_left_s: Seconds the client is going to wait; None where it does not say.

        Raises:
            ServiceError: the request is refused, or a tier failed.
        """
        job = self._job(question, client_left_s)
        self._service.pipeline.check(question)
        describe(self._record.span, job, self._service.served.name)
        by_s = job.deadline.first_token_by_s
        conversation = await self._with_files(question.conversation, by_s)
        if conversation is not question.conversation:
            job = replace(job, question=replace(question, conversation=conversation))
        async with aclosing(self._service.pipeline.answer(job, self._charge)) as events:
            async for index, event in events:
                self._note(index, event)
                yield index, event

    async def continued(
        self,
        question: Question,
        brought: BroughtPrompt,
        chunks: AsyncIterator[BroughtChunk],
        *,
        client_left_s: float | None = None,
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        """Yields events as `answer` does, for a prompt and features of the caller's.

        Args:
            question: How it is to be answered, and which tools it was prepared with.
            brought: The prompt.
            chunks: Its features; read when the prompt is admitted.
            client_left_s: Seconds the client is going to wait; None where it does not say.

        Raises:
            ServiceError: the request is refused, or the decoder tier failed.
        """

        def admit(prompt: PreparedPrompt, size_bytes: int) -> None:
            admission = self._service.admission
            check_size(size_bytes, admission.max_bytes)
            self._held.enter_context(admission.room(size_bytes))
            self._charge(prompt)

        job = self._job(question, client_left_s)
        pipeline = self._service.pipeline
        pipeline.check(question)
        describe(self._record.span, job, self._service.served.name)
        async with aclosing(pipeline.continued(job, brought, chunks, admit)) as events:
            async for index, event in events:
                self._note(index, event)
                yield index, event

    def _charge(self, prompt: PreparedPrompt) -> None:
        images = prompt.image_tokens + prompt.video_tokens
        self._account.take_prompt(tokens=len(prompt.input_ids), image_tokens=images)

    async def prepare(self, model: str | None, conversation: Conversation) -> PreparedPrompt:
        """The prompt of a conversation, without an answer.

        Raises:
            ServiceError: the request is refused.
        """
        self._service.served.check(model)
        prompt = await self._service.pipeline.prompts.prepare(
            await self._with_files(conversation, self.whole_by_s),
            request_id=self._record.request_id,
            by_s=self.whole_by_s,
        )
        self._record.note(prompt_tokens=len(prompt.input_ids))
        self._record.ended("ok")
        return prompt

    async def plain_ids(self, model: str | None, plain: PlainPrompt) -> list[int]:
        """The token ids of a text, without an answer.

        Raises:
            ServiceError: the request is refused.
        """
        self._service.served.check(model)
        ids = await self._service.pipeline.prompts.plain_ids(plain)
        self._record.note(prompt_tokens=len(ids))
        self._record.ended("ok")
        return ids

    def ended(self) -> None:
        """Notes that a request without an answer of the model's went well."""
        self._record.ended("ok")

    def failed(self, reason: Reason) -> None:
        """Notes a failure that the door tells the client itself, in the middle of a stream."""
        self._record.failed(reason)

    async def _with_files(self, conversation: Conversation, by_s: float) -> Conversation:
        """The conversation with what its URLs name, and with the pages of its PDFs."""
        admission, prompts = self._service.admission, self._service.pipeline.prompts

        def hold(size: int) -> None:
            self._held.enter_context(admission.room(size))

        if names_files(conversation):
            conversation = await with_files(
                conversation,
                self._service.files,
                limits=prompts.media_limits(),
                video_limits=prompts.video_limits(),
                pdf_limits=prompts.pdf_limits(),
                hold=hold,
            )
        return await prompts.with_pages(
            conversation, request_id=self._record.request_id, by_s=by_s, hold=hold
        )

    def _job(self, question: Question, client_left_s: float | None) -> ChatJob:
        service = self._service
        service.served.check(question.model)
        return ChatJob(
            request_id=self._record.request_id,
            question=question,
            priority=self._account.priority(question.priority),
            sampling=with_presets(question.sampling, service.served.presets),
            cache_salt=service.tenants.salt(self._api_key, question.cache_salt),
            tenant=service.tenants.name(self._api_key),
            arrived_s=self._arrived_s,
            deadline=service.patience.deadline(
                self._arrived_s, stream=question.stream, client_left_s=client_left_s
            ),
        )

    def _note(self, index: int, event: AnswerEvent) -> None:
        metrics = self._service.metrics
        if not isinstance(event, AnswerEnd):
            self._record.first_token()
            if index not in self._clocks:
                self._clocks[index] = TokenClock(metrics)
            self._clocks[index].came(len(event.tokens))
            return
        metrics.choice_ended(event.timings)
        self._completion_tokens += event.completion_tokens
        self._account.usage.completion_tokens += event.completion_tokens
        self._record.note(
            prompt_tokens=event.prompt_tokens,
            completion_tokens=self._completion_tokens,  # of all choices so far
            cached_tokens=event.cached_tokens,
        )
        self._record.ended(event.finish_reason.value)
