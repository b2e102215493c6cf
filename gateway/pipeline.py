"""The life of one request, from a conversation to its answer. Both doors run it.

A PDF in it has become images and texts of its pages before (`with_pages`).

1. A decoder is chosen, because the prompt must fit into its context.
2. A vision tier chooses the frames of its videos that are seen; the conversation becomes token
   ids, spans and position ids, in a worker thread unless it is short.
3. A `Generate` stream is opened with the prompt. The decoder answers at once with the spans
   whose features it needs.
4. Each needed image and piece of a video is encoded, all at the same time, unless its features are
   kept; they flow into the open stream as they come. The decoder prefills the text before a
   missing span meanwhile. A decoder that is lost is replaced: see `gateway.generation`.
5. Tokens become text. Stop strings end the answer.

Whatever fails first ends everything, because leaving a block cancels the calls behind it. So an
image or video is used, or its request fails.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from gateway.answer.calls import Calls
from gateway.answer.detokenize import Detokenizer, TokenBytes
from gateway.answer.events import (
    AnswerEnd,
    AnswerEvent,
    DecoderEnd,
    FinishReason,
)
from gateway.answer.merge import merged
from gateway.answer.thoughts import Thoughts
from gateway.answer.timings import Stopwatch
from gateway.answer.transcript import Transcript
from gateway.brought.features import BroughtChunk, BroughtFeatures, BroughtRules, FeatureShape
from gateway.brought.prompt import BroughtPrompt, BroughtSpan, check_room, prepared
from gateway.fleet.router import Endpoint
from gateway.generation import Generation, Moving, Work
from gateway.metrics import GatewayMetrics
from gateway.preparing import Prompts, check_length
from gateway.prompt.builder import PreparedPrompt, PromptBuilder
from gateway.request.deadlines import Patience, milliseconds_since
from gateway.request.job import ChatJob, Question
from gateway.request.sampling import with_seed
from gateway.threads import Threads
from gateway.tiers.affinity import affinity
from gateway.tiers.decoder import DecoderClient
from gateway.tiers.embeddings import EmbeddingCache
from gateway.tiers.features import FeatureSource
from gateway.tiers.vision import VisionClient
from gateway.tools.form import form_of
from protos.process import tracing


class Pipeline:
    """Answers conversations with the tiers behind the gateway.

    Attributes:
        prompts: Makes their prompts.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        builder: PromptBuilder,
        token_bytes: TokenBytes,
        vision: VisionClient,
        decoder: DecoderClient,
        threads: Threads,
        patience: Patience,
        moving: Moving,
        embeddings: EmbeddingCache,
        brought: BroughtRules,
        metrics: GatewayMetrics,
    ) -> None:
        self._vocab_size = vocab_size
        self._builder = builder
        self._token_bytes = token_bytes
        self._vision = vision
        self._decoder = decoder
        self._threads = threads
        self._patience = patience
        self._moving = moving
        self._embeddings = embeddings
        self._brought = brought
        self.prompts = Prompts(builder, vision, threads=threads, patience=patience)
        self._metrics = metrics

    def check(self, question: Question) -> None:
        """Checks everything of a question but its conversation; see `Question.check`."""
        question.check(vocab_size=self._vocab_size)

    @property
    def feature_shape(self) -> FeatureShape:
        """What the model takes for each placeholder."""
        return self._brought.shape

    async def answer(
        self, job: ChatJob, charge: Callable[[PreparedPrompt], None]
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        """Yields (choice index, event) as the answer grows; each choice ends with `AnswerEnd`.

        Closing the generator cancels everything behind it.

        Args:
            job: Its question is checked, and its images' files are there.
            charge: Refuses a prompt that its key may not have answered now, before anything is
                encoded.

        Raises:
            ServiceError: the request is refused, or a tier failed.
        """
        question = job.question
        begun = affinity(question.conversation, job.cache_salt, plain=question.plain)
        endpoint = await self._decoder.ready(affinity=begun)
        preparing_s = time.monotonic()
        if question.plain is None:
            prompt = await self.prompts.prepare(
                question.conversation,
                request_id=job.request_id,
                by_s=job.deadline.first_token_by_s,
                max_context=endpoint.max_context,
            )
        else:
            prompt = await self.prompts.prepare_plain(
                question.plain, max_context=endpoint.max_context
            )
        tracing.past("prepare", preparing_s)
        check_length(prompt, job, max_context=endpoint.max_context)
        charge(prompt)
        prepare_ms = milliseconds_since(preparing_s)
        stores = [self._embeddings]
        if question.choice_count > 1:  # what there is no room for is encoded once all the same
            stores.append(self._embeddings.without_bound())
        with FeatureSource(
            self._vision,
            stores,
            prompt.visuals,
            prompt.spans,
            salt=job.cache_salt,
            request_id=job.request_id,
        ) as features:
            work = self._work(job, prompt, features, endpoint, begun, prepare_ms)
            choices = [self._choice(work, index) for index in range(question.choice_count)]
            async with aclosing(merged(choices)) as events:
                async for index, event in events:
                    yield index, event

    async def continued(
        self,
        job: ChatJob,
        brought: BroughtPrompt,
        chunks: AsyncIterator[BroughtChunk],
        admit: Callable[[PreparedPrompt, int], None],
    ) -> AsyncGenerator[tuple[int, AnswerEvent], None]:
        """Yields events as `answer` does, for a prompt and features of the caller's.

        Args:
            job: Its question is checked, and has tools but no messages.
            brought: The prompt.
            chunks: Its features.
            admit: Refuses a prompt that may not be answered now, or whose features, so many bytes,
                have no room, before any of them is read.

        Raises:
            ServiceError: the request is refused, or the decoder tier failed.
        """
        begun = brought.affinity(job.cache_salt)
        endpoint = await self._decoder.ready(affinity=begun)
        preparing_s = time.monotonic()
        named = partial(BroughtSpan.name, key=self._brought.key)
        prompt = await self._threads.run(
            partial(prepared, brought, self._builder, named, max_context=endpoint.max_context)
        )
        self._builder.check_tools(job.question.conversation)
        check_length(prompt, job, max_context=endpoint.max_context)
        features = BroughtFeatures(brought.spans, self._brought.shape, threads=self._threads)
        prepare_ms = milliseconds_since(preparing_s)
        work = self._work(job, prompt, features, endpoint, begun, prepare_ms)
        admit(prompt, features.size_bytes)
        await features.receive(chunks, by_s=job.deadline.first_token_by_s)
        # Their coming may have taken long enough for decoders to come and go.
        endpoint = await self._decoder.ready(affinity=begun)
        check_room(len(prompt.input_ids), endpoint.max_context)
        async with aclosing(self._choice(replace(work, endpoint=endpoint), 0)) as events:
            async for event in events:
                yield 0, event

    def _work(
        self,
        job: ChatJob,
        prompt: PreparedPrompt,
        features: FeatureSource | BroughtFeatures,
        endpoint: Endpoint,
        begun: bytes,
        prepare_ms: float,
    ) -> Work:
        """What the choices of a request share.

        Raises:
            InvalidRequest: INVALID_SCHEMA, the answer's form is no JSON schema.
        """
        question = job.question
        behind_thought = prompt.thought_end is not None
        calls, tools = self._builder.calls, question.callable_tools()
        return Work(
            job=replace(job, sampling=with_seed(job.sampling)),
            prompt=prompt,
            form=form_of(question, tools, calls, behind_thought=behind_thought),
            endpoint=endpoint,
            affinity=begun,
            features=features,
            prepare_ms=prepare_ms,
        )

    async def _choice(self, work: Work, index: int) -> AsyncGenerator[AnswerEvent, None]:
        """One choice's tokens and the text they become."""
        transcript = self._transcript(work)
        watch = Stopwatch(work.job.arrived_s, prepare_ms=work.prepare_ms)
        generation = Generation(
            work,
            index,
            watch,
            decoder=self._decoder,
            patience=self._patience,
            moving=self._moving,
            metrics=self._metrics,
        )
        end: DecoderEnd | None = None
        async with aclosing(generation.events()) as events:
            async for event in events:
                if isinstance(event, DecoderEnd):
                    end, texts = event, transcript.finish()
                else:
                    watch.token()
                    texts = transcript.add(event)
                for text in texts:
                    yield text
                if transcript.stopped:
                    break
        yield _answer_end(work.prompt, generation, end, transcript, watch)

    def _transcript(self, work: Work) -> Transcript:
        form, stopping = work.form, work.job.question.stopping
        # Where the template opens no thought, a constraint leaves no room for one.
        has_begun = work.prompt.thought_end is not None
        may_think = has_begun or form.constraint is None or form.begin is not None
        may_think = may_think and work.job.question.plain is None
        around = self._builder.thought_tokens if may_think else None
        thoughts = Thoughts(self._token_bytes, around, has_begun=has_begun, call_begin=form.begin)
        text = Detokenizer(
            self._token_bytes, stopping.stop_strings, holds_newlines=form.calls is not None
        )
        calls = Calls(self._token_bytes, form.calls)
        return Transcript(text, thoughts, calls, min_tokens=stopping.min_tokens)


def _answer_end(
    prompt: PreparedPrompt,
    generation: Generation,
    end: DecoderEnd | None,
    transcript: Transcript,
    watch: Stopwatch,
) -> AnswerEnd:
    """How a choice ended; without the decoder's word a stop string ended it, and the call.

    What a decoder says of cached tokens and times is about its own part of a moved answer: the
    first one's admission counts, and the gateway's own clock.
    """
    admitted = generation.admitted
    assert admitted is not None, "it has ended well"
    whole = None if generation.moves else end
    reason = FinishReason.STOP
    if end is not None and not transcript.stopped:
        reason = end.finish_reason
    if reason is FinishReason.STOP and transcript.call_count:
        reason = FinishReason.TOOL_CALLS
    return AnswerEnd(
        finish_reason=reason,
        prompt_tokens=len(prompt.input_ids),
        completion_tokens=transcript.token_count if end is None else end.completion_tokens,
        cached_tokens=admitted.cached_tokens if whole is None else whole.cached_tokens,
        thought_tokens=transcript.thought_tokens,
        stop_string=transcript.stop_string,
        image_tokens=prompt.image_tokens,
        video_tokens=prompt.video_tokens,
        timings=watch.timings(None if whole is None else whole.timings),
    )
