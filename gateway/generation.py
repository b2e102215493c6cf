"""One choice of an answer as decoders generate it: one of them, or several one after the other.

A decoder that dies, hangs or is stopped in mid-stream loses nothing that the gateway needs: the
tokens so far are here, and the text, calls and thoughts they became. Another decoder is given the
prompt and those tokens and goes on behind them; the client sees a pause. The seed travels with the
request, so a sampled answer is the same one.

A decoder counts as lost when its call ends with UNAVAILABLE, when it is silent beyond its own pace
and does not answer a look within a bound, or when it is silent for as long as no stream may be.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.answer.events import Admitted, DecoderEnd, FinishReason, OutputToken
from gateway.answer.pace import Pace
from gateway.answer.timings import Stopwatch
from gateway.feeding import Features, Feeder
from gateway.fleet.router import Endpoint
from gateway.metrics import GatewayMetrics
from gateway.prompt.builder import PreparedPrompt
from gateway.request.deadlines import Patience, seconds_left
from gateway.request.job import ChatJob
from gateway.tiers.calls.ahead import NotYet
from gateway.tiers.calls.generate import DecoderLost, GenerateCall
from gateway.tiers.convert import Progress
from gateway.tiers.decoder import DecoderClient
from gateway.tools.form import AnswerForm
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import DeadlineExceeded, Overloaded, ServiceError, Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

# How long an answer's end waits for the encoder's times, which every answer but the shortest has.
TIMES_WITHIN_S = 1.0

# Between looks for a decoder while none is ready.
LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """How far answers are moved from decoder to decoder.

    Attributes:
        max_moves: Most moves of one choice; one more loss is its error.
        wait_s: How long an answer that has begun waits for a decoder to be ready.
        is_leaving: Whether the gateway is stopping: then none is waited for, since whoever stops
            all services at once would wait for it.
    """

    max_moves: int
    wait_s: float
    is_leaving: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the choices of one request share; `endpoint` is the first decoder's."""

    job: ChatJob
    prompt: PreparedPrompt
    form: AnswerForm
    endpoint: Endpoint
    affinity: bytes
    features: Features
    prepare_ms: float


class Generation:
    """One choice's tokens, wherever they come from.

    Args:
        work: What is to be generated.
        choice: Which of its choices.
        watch: Told of encodings.
        decoder: The tier.
        patience: How long parts may take.
        moving: How far it may be moved.
        metrics: Told of admissions and moves.

    Attributes:
        admitted: What the first decoder said; None until it has.
        moves: Decoders it has been moved away from.
    """

    def __init__(
        self,
        work: Work,
        choice: int,
        watch: Stopwatch,
        *,
        decoder: DecoderClient,
        patience: Patience,
        moving: Moving,
        metrics: GatewayMetrics,
    ) -> None:
        self.admitted: Admitted | None = None
        self.moves = 0
        self._work = work
        self._choice = choice
        self._feeder = Feeder(work.features, work.prompt.grids, watch, patience)
        self._decoder = decoder
        self._patience = patience
        self._moving = moving
        self._metrics = metrics
        self._output: list[int] = []
        self._lost: list[Endpoint] = []
        # The decoder it began with says how long it may become, so that a move changes no end.
        room = work.endpoint.max_context - len(work.prompt.input_ids)
        wanted = work.job.question.stopping.max_tokens
        self._max_tokens = room if wanted is None else min(wanted, room)
        self._pace = Pace()

    async def events(self) -> AsyncGenerator[tuple[OutputToken, ...] | DecoderEnd, None]:
        """Yields tokens as they come, and how the sequence ended.

        Raises:
            ServiceError: the request is refused, a tier failed, or its decoders were lost too
                often.
        """
        endpoint = self._work.endpoint
        while True:
            try:
                async with self._calling(endpoint) as (call, feeding):
                    while True:
                        event = await self._next(call, feeding, endpoint)
                        yield event
                        if isinstance(event, DecoderEnd):
                            # All features were taken, but the message with the encoder's times
                            # may still be under way: a short answer is over sooner.
                            if not feeding.done():
                                await asyncio.wait({feeding}, timeout=TIMES_WITHIN_S)
                            return
            except DecoderLost as loss:
                if len(self._output) == self._max_tokens:
                    yield self._at_its_longest()
                    return
                endpoint = await self._elsewhere(endpoint, loss.error)

    @asynccontextmanager
    async def _calling(
        self, endpoint: Endpoint
    ) -> AsyncIterator[tuple[GenerateCall, "asyncio.Future[None]"]]:
        """A call that goes on behind the output so far, fed beside the block; ends with it."""
        work = self._work
        progress = Progress(self._output, self._max_tokens, self.moves) if self.moves else None
        self._pace.called()
        async with self._decoder.generate(
            endpoint, work.job, work.prompt, work.form, choice=self._choice, progress=progress
        ) as call:
            try:
                admitted = await self._heard(call.admitted, None, endpoint)
            except Overloaded as error:
                if self.admitted is None:
                    raise
                raise DecoderLost(error) from error  # one that has begun is not sent away
            needed = work.features.needed(admitted.needed_spans)
            if self.admitted is None:
                self.admitted = admitted
                self._metrics.admitted(images=work.features.count, needed=len(needed))
            feeding = await self._feeder.begin(call, admitted, needed, by_s=self._by_s)
            try:
                yield call, feeding
            finally:
                if not feeding.done():
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)

    async def _next(
        self, call: GenerateCall, feeding: "asyncio.Future[None]", endpoint: Endpoint
    ) -> tuple[OutputToken, ...] | DecoderEnd:
        """The decoder's next tokens or its end, or the failure of the features it waits for."""
        event = await self._heard(call.read, feeding, endpoint)
        self._pace.heard()
        if not isinstance(event, DecoderEnd):
            self._output.extend(token.token_id for token in event)
        return event

    async def _heard(
        self,
        listen: Callable[[float | None], Coroutine[Any, Any, T]],
        feeding: "asyncio.Future[None] | None",
        endpoint: Endpoint,
    ) -> T:
        """A message of the decoder's.

        Raises:
            DecoderLost: it does not come, and the decoder is not there or lets it wait too long.
            ServiceError: feeding failed, or time is up.
        """
        if feeding is None or feeding.done():  # as it is for all but the first tokens
            if feeding is not None:
                feeding.result()
            with suppress(NotYet):  # no task is needed until the decoder is suspicious
                return await listen(self._listen_s())
        reading = asyncio.create_task(listen(None))
        try:
            while not reading.done():
                waiting: set[asyncio.Future[Any]] = {reading}
                if feeding is not None and not feeding.done():
                    waiting.add(feeding)
                done, _ = await asyncio.wait(
                    waiting, timeout=self._listen_s(), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    await self._ask_after(endpoint, reading)
                # Done now, and not among `done`: it may have failed while the decoder was asked.
                if feeding is not None and feeding.done():
                    feeding.result()
            return reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @property
    def _by_s(self) -> float:
        """When the decoder's next message must be here."""
        deadline = self._work.job.deadline
        return deadline.complete_by_s if self._output else deadline.first_token_by_s

    def _listen_s(self) -> float:
        """Seconds until the decoder has been silent for suspiciously long, at least a few.

        Raises:
            DeadlineExceeded: none are left.
        """
        suspicion_s = min(self._pace.suspect_s, self._silent_by_s) - time.monotonic()
        return min(seconds_left(self._by_s), max(0.01, suspicion_s))

    @property
    def _silent_by_s(self) -> float:
        """When the answer has been silent for as long as any may be."""
        if not self._output:
            return float("inf")
        idle_s = self._patience.stream_idle_s
        if not self._pace.has_begun:  # a moved one computes again what took so long before
            idle_s = max(idle_s, 2 * self._pace.first_s)
        return self._pace.last_s + idle_s

    async def _ask_after(self, endpoint: Endpoint, reading: "asyncio.Task[T]") -> None:
        """Finds out whether a decoder that was silent for long is there.

        Raises:
            DecoderLost: it is not, or it has been silent for too long all the same.
        """
        if time.monotonic() >= self._silent_by_s:
            raise DecoderLost(DeadlineExceeded("the decoder was silent for too long"))
        if time.monotonic() >= self._pace.suspect_s:
            is_there = await self._decoder.is_there(endpoint)
            self._pace.asked()
            if not is_there and not reading.done():
                raise DecoderLost(self._decoder.router.failure())

    async def _elsewhere(self, endpoint: Endpoint, error: ServiceError) -> Endpoint:
        """The decoder that goes on; those that were lost only where there is no other.

        Raises:
            ServiceError: none is ready in time, or it has been moved often enough.
        """
        if self.moves >= self._moving.max_moves:
            raise error
        self.moves += 1
        self._lost.append(endpoint)
        self._metrics.moved(error.reason)
        logger.warning(
            "an answer moves, request_id=%s choice=%d move=%d tokens=%d reason=%s from=%s",
            self._work.job.request_id,
            self._choice,
            self.moves,
            len(self._output),
            error.reason.value,
            endpoint.address,
        )
        wait_s = 0.0 if self.admitted is None else self._moving.wait_s
        by_s = min(self._by_s, time.monotonic() + wait_s)
        if isinstance(error, Overloaded):  # its queue is as full a moment later
            await asyncio.sleep(min(wait_s, error.retry_after_s or LOOK_AGAIN_S))
        while True:
            try:
                found = await self._ready()
            except Unavailable:
                if time.monotonic() >= by_s or self._moving.is_leaving():
                    raise error from None
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if self.admitted is None and found in self._lost:
                raise error  # nothing has begun there that could go on when it is back
            return found

    async def _ready(self) -> Endpoint:
        """A decoder that is ready and has room for the output so far.

        Raises:
            Unavailable: there is none.
        """
        length = len(self._work.prompt.input_ids) + len(self._output)
        endpoint = await self._decoder.ready(avoid=self._lost, affinity=self._work.affinity)
        if endpoint.max_context <= length:
            self._lost.append(endpoint)
            raise self._decoder.router.failure()
        return endpoint

    def _at_its_longest(self) -> DecoderEnd:
        """The end that a decoder was about to tell when it was lost."""
        assert self.admitted is not None, "it has tokens"
        return DecoderEnd(
            finish_reason=FinishReason.LENGTH,
            completion_tokens=len(self._output),
            cached_tokens=self.admitted.cached_tokens,
            timings=decoder_pb2.GenerateTimings(),
        )
