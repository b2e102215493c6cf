"""The life of one request, from a conversation to its answer. Both doors run it.

1. The conversation becomes token ids, spans and position ids, in a worker thread.
2. A decoder is chosen and a `Generate` stream opened with the prompt. It answers at once with
   the spans whose features it needs.
3. Each needed image is encoded, all at the same time; features flow into the open stream as
   they come. The decoder prefills the text before a missing span meanwhile.
4. Tokens become text. Stop strings end the answer.

Whatever fails first ends everything, because leaving a block cancels the calls behind it. So a
image is used, or its request fails.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.answer.events import (
    Admitted,
    AnswerEnd,
    AnswerEvent,
    DecoderEnd,
    FinishReason,
    OutputToken,
)
from gateway.answer.merge import merged
from gateway.answer.timings import Stopwatch
from gateway.answer.transcript import Transcript
from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.request.conversation import Conversation
from gateway.request.deadlines import Patience, milliseconds_since, seconds_left
from gateway.request.job import ChatJob
from gateway.tiers.affinity import affinity
from gateway.tiers.clients import CallEnded, DecoderClient, GenerateCall, VisionClient
from gateway.tiers.convert import start_to_proto
from gateway.tiers.features import FeatureSource
from gateway.tiers.router import Endpoint
from protos.bundle.manifest import Bundle
from protos.tandem.v1 import tensor_pb2
from protos.wire.errors import DeadlineExceeded, PromptTooLong, Reason, ServiceError

T = TypeVar("T")

# How long an answer's end waits for the encoder's times, which every answer but the shortest has.
TIMES_WITHIN_S = 1.0


class Pipeline:
    """Answers conversations with the tiers behind the gateway."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        builder: PromptBuilder,
        vision: VisionClient,
        decoder: DecoderClient,
        threads: Executor,
        patience: Patience,
    ) -> None:
        self._bundle = bundle
        self._builder = builder
        self.token_bytes = TokenBytes(builder.tokenizer)
        self._vision = vision
        self._decoder = decoder
        self._threads = threads
        self._patience = patience

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Runs heavy work off the event loop, so that other streams go on."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def prepare(
        self, conversation: Conversation, *, max_context: int | None = None
    ) -> PreparedPrompt:
        """The spliced prompt of a conversation; see `PromptBuilder.prepare`."""
        return await self.in_thread(
            lambda: self._builder.prepare(conversation, max_context=max_context)
        )

    async def answer(self, job: ChatJob) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        """Yields (choice index, event) as the answer grows; each choice ends with `AnswerEnd`.

        Closing the generator cancels everything behind it.

        Raises:
            ServiceError: the request is refused, or a tier failed.
        """
        job.check(vocab_size=self._bundle.manifest.text.vocab_size)
        endpoint = await self._decoder.ready(affinity=affinity(job.conversation, job.cache_salt))
        preparing_s = time.monotonic()
        prompt = await self.prepare(job.conversation, max_context=endpoint.max_context)
        check_length(prompt, job, max_context=endpoint.max_context)
        prepare_ms = milliseconds_since(preparing_s)
        async with FeatureSource(
            self._vision,
            prompt.images,
            request_id=job.request_id,
            shared=job.choice_count > 1,
        ) as features:
            work = _Work(
                job=job,
                prompt=prompt,
                endpoint=endpoint,
                features=features,
                prepare_ms=prepare_ms,
            )
            choices = [self._choice(work, index) for index in range(job.choice_count)]
            async with aclosing(merged(choices)) as events:
                async for index, event in events:
                    yield index, event

    async def _choice(self, work: "_Work", index: int) -> AsyncGenerator[AnswerEvent, None]:
        """One Generate stream and the text it becomes."""
        job, prompt = work.job, work.prompt
        transcript = Transcript(Detokenizer(self.token_bytes, job.stopping.stop_strings))
        watch = Stopwatch(job.arrived_s, prepare_ms=work.prepare_ms)
        start = start_to_proto(job, prompt, choice=index, bundle_digest=self._bundle.digest)
        end: DecoderEnd | None = None
        by_s = job.deadline.complete_by_s
        async with self._decoder.generate(
            work.endpoint, start, by_s=by_s, constraint=job.constraint
        ) as call:
            admitted = await _admitted(call, job)
            async with self._feeding(call, admitted, work, watch) as feeding:
                while end is None and not transcript.stopped:
                    event = await _next(call, feeding, by_s=self._next_by_s(job, watch))
                    if isinstance(event, DecoderEnd):
                        end, text = event, transcript.finish()
                    else:
                        watch.token()
                        text = transcript.add(event)
                    if text.text or text.tokens:
                        yield text
                if end is not None:
                    # All features were taken, but the message with the encoder's times may still
                    # be under way: a short answer is over sooner.
                    await asyncio.wait({feeding}, timeout=TIMES_WITHIN_S)
        # Without the decoder's end, a stop string ended the answer and the decoder's call.
        reason = FinishReason.STOP
        if end is not None and not transcript.stopped:
            reason = end.finish_reason
        yield AnswerEnd(
            finish_reason=reason,
            prompt_tokens=len(prompt.input_ids),
            completion_tokens=transcript.token_count if end is None else end.completion_tokens,
            cached_tokens=admitted.cached_tokens if end is None else end.cached_tokens,
            timings=watch.timings(None if end is None else end.timings),
        )

    def _next_by_s(self, job: ChatJob, watch: Stopwatch) -> float:
        """When the decoder's next message must be here."""
        if not watch.has_first_token:
            return job.deadline.first_token_by_s
        return min(job.deadline.complete_by_s, time.monotonic() + self._patience.stream_idle_s)

    @asynccontextmanager
    async def _feeding(
        self, call: GenerateCall, admitted: Admitted, work: "_Work", watch: Stopwatch
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Feeds the decoder beside the block; leaving it stops the feeding."""
        encode_by_s = time.monotonic() + self._patience.encode_s
        by_s = min(work.job.deadline.first_token_by_s, encode_by_s)
        feeding = asyncio.create_task(_feed(call, admitted, work.features, watch, by_s))
        try:
            yield feeding
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the choices of one request share."""

    job: ChatJob
    prompt: PreparedPrompt
    endpoint: Endpoint
    features: FeatureSource
    prepare_ms: float


def check_length(prompt: PreparedPrompt, job: ChatJob, *, max_context: int) -> None:
    """Checks that the wanted completion fits behind the prompt, before anything is encoded.

    Raises:
        PromptTooLong: with the counts.
    """
    length = len(prompt.input_ids)
    wanted = job.stopping.max_tokens
    if wanted is not None and length + wanted > max_context:
        raise PromptTooLong(
            f"messages with {length} tokens and max_tokens {wanted} have {length + wanted}"
            f" tokens > limit {max_context} of the context window",
            param="max_tokens",
        )


async def _admitted(call: GenerateCall, job: ChatJob) -> Admitted:
    try:
        async with asyncio.timeout(seconds_left(job.deadline.first_token_by_s)):
            event = await call.read()
    except TimeoutError as error:
        raise DeadlineExceeded("the deadline passed before the decoder answered") from error
    if not isinstance(event, Admitted):
        raise ServiceError("the decoder broke its contract", reason=Reason.DATA_LOSS)
    return event


async def _next(
    call: GenerateCall, feeding: "asyncio.Task[None]", *, by_s: float
) -> tuple[OutputToken, ...] | DecoderEnd:
    """The decoder's next tokens or its end, or the failure of the features it waits for."""
    reading = asyncio.create_task(call.read())
    try:
        while not reading.done():
            waiting = {reading} if feeding.done() else {reading, feeding}
            done, _ = await asyncio.wait(
                waiting, timeout=seconds_left(by_s), return_when=asyncio.FIRST_COMPLETED
            )
            if feeding in done:
                feeding.result()
        event = reading.result()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    if isinstance(event, Admitted):
        raise ServiceError("the decoder broke its contract", reason=Reason.DATA_LOSS)
    return event


async def _feed(
    call: GenerateCall,
    admitted: Admitted,
    features: FeatureSource,
    watch: Stopwatch,
    by_s: float,
) -> None:
    """Passes on the features of every needed span, all spans at the same time.

    Raises:
        ServiceError: the first image that could not be encoded.
    """

    async def feed_span(index: int) -> None:
        async def forward(chunk: tensor_pb2.FeatureChunk) -> None:
            await call.send_features(index, chunk)

        watch.encoded(await features.send(index, forward, by_s=by_s))

    try:
        async with asyncio.TaskGroup() as spans:
            for index in admitted.needed_spans:
                spans.create_task(feed_span(index))
    except* CallEnded:
        pass  # reading the call tells why
    except* ServiceError as group:
        raise group.exceptions[0] from None
    await call.finish_sending()
