"""Running one step: inputs from sequences, logits from the runner, tokens back to sequences.

Synchronous and single-threaded: the engine's thread calls it, tests call it directly.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decoder_service.model.batch import DecodeLane, LaneLogits, PrefillLane, Runner
from decoder_service.model.embeddings import EmbeddingTable, PlacedFeatures, scatter
from decoder_service.sampling.logprobs import token_logprobs
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import PrefillChunk, StepPlan
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.sequence import (
    Completion,
    FinishReason,
    Sequence,
    Status,
    Token,
    completion,
)
from protos.wire.errors import InternalError, InvalidRequest, Reason, ServiceError

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]


class Output(NamedTuple):
    """What a step made of one sequence; after a `Completion` or an error it is finished."""

    sequence: Sequence
    event: Token | Completion | ServiceError


class StepExecutor:
    """Runs plans and keeps sequences and slots in step with them.

    Attributes:
        on_start: Called right before the model computes, which leaves the interpreter to others.
        on_end: Called when it has, or has failed to; without `on_start` where it did not begin.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        table: EmbeddingTable,
        residency: Residency,
        level_count: int,
        pacer: ChunkPacer,
        speculation: Speculation,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.residency = residency
        self.pacer = pacer
        self.on_start: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self._speculation = speculation
        self._runner = runner
        self._table = table
        self._level_count = level_count
        self._clock = clock

    def run(self, plan: StepPlan, step: int) -> list[Output]:
        """Runs a whole step: the first chunk beside the decoding sequences, the others alone.

        Args:
            plan: What to run; not empty.
            step: Its number.
        """
        batch = self.residency.slots.decoding() if plan.decode else []
        if len(batch) == 1 and not plan.prefill:
            return self._run_alone(batch[0])
        outputs = self._run_lanes(batch, plan.prefill[0] if plan.prefill else None, step)
        for chunk in plan.prefill[1:]:
            if self.residency.still_fits(chunk):
                outputs += self._run_lanes([], chunk, step)
        return outputs

    def _run_lanes(
        self, batch: list[Sequence], chunk: PrefillChunk | None, step: int
    ) -> list[Output]:
        decode = self._decode_lane(batch) if batch else None
        if chunk is None:
            logits = self._timed_run(None, decode)
            self._extend(batch)
            return self._take_tokens(batch, logits.decode)
        began = self._clock()
        if chunk.sequence.times.first_prefill is None:
            chunk.sequence.times.first_prefill = began
        try:
            logits = self._timed_run(self._prefill_lane(chunk), decode)
        except Exception:  # One sequence's prompt: its slot alone was bound, so it fails alone.
            request_id = chunk.sequence.request.request_id
            logger.exception("prefill failed, request_id=%s", request_id)
            # Runs may be repeated. When this one fails too, it was not that sequence's fault.
            outputs = self._run_lanes(batch, None, step) if batch else []
            self.residency.end(chunk.sequence, is_sound=False)
            return [*outputs, Output(chunk.sequence, InternalError("internal error"))]
        chunk.sequence.times.prefill_s += self._clock() - began
        chunk.sequence.served_step = step
        # All of it before anything moves between slots: what is not noted is not kept.
        self._extend(batch)
        self.residency.extend(chunk.sequence, chunk.stop)
        outputs = self._take_tokens(batch, logits.decode)
        if chunk.is_last:
            outputs += self._take_tokens([chunk.sequence], logits.prefill)
            if chunk.sequence.status is Status.PREFILLING:
                self.residency.slots.promote(chunk.sequence)
                chunk.sequence.status = Status.DECODING
        return outputs

    def _run_alone(self, sequence: Sequence) -> list[Output]:
        """The next token of the only sequence that decodes, and of its draft what comes true."""
        draft = self._draft(sequence)
        decode = None if len(draft) else self._decode_lane([sequence])
        prefill = self._verify_lane(sequence, draft) if len(draft) else None
        began = self._clock()
        found = self._timed_run(prefill, decode)
        self._speculation.observe(1 + len(draft), self._clock() - began)
        logits = found.prefill if len(draft) else found.decode
        start, outputs = sequence.history_length, list[Output]()
        sequence.drafted_tokens += len(draft)
        for row in range(1 + len(draft)):
            self.residency.slots.extend(sequence, sequence.history_length)
            outputs += self._take_tokens([sequence], logits[row : row + 1])
            is_last = row == len(draft) or sequence.status is not Status.DECODING
            if is_last or sequence.token_ids[sequence.history_length - 1] != draft[row]:
                break
        if len(draft):
            confirmed = sequence.token_ids[start : min(sequence.history_length, start + len(draft))]
            accepted = int((confirmed == draft[: len(confirmed)]).sum())
            sequence.accepted_tokens += accepted
            self._speculation.settle(sequence, len(draft), accepted)
            *rest, (_, event) = outputs
            if isinstance(event, Completion):  # made before the last token was counted
                event = replace(event, accepted_tokens=sequence.accepted_tokens)
                outputs = [*rest, Output(sequence, event)]
        return outputs

    def _draft(self, sequence: Sequence) -> npt.NDArray[np.int32]:
        room = sequence.request.max_tokens - sequence.output_count - 1
        draft = self._speculation.draft(sequence, room)
        assert sequence.slot is not None, "it decodes"
        length = sequence.history_length + len(draft)
        if len(draft) and not self.residency.slots.reserve({sequence.slot: length}):
            return draft[:0]
        return draft

    def _verify_lane(self, sequence: Sequence, draft: npt.NDArray[np.int32]) -> PrefillLane:
        start = sequence.kv_length
        tokens = np.concatenate([sequence.token_ids[start : start + 1], draft])
        places = np.arange(start, start + len(tokens), dtype=np.int32)
        positions = places + np.int32(sequence.request.position_delta)
        assert sequence.slot is not None, "it decodes"
        return PrefillLane(
            slot=sequence.slot,
            past=start,
            embeds=self._table.rows(tokens),
            position_ids=np.tile(positions, (3, 1)),
            deepstack=None,
            logit_rows=np.arange(len(tokens)),
        )

    def _extend(self, batch: list[Sequence]) -> None:
        for sequence in batch:
            self.residency.slots.extend(sequence, sequence.history_length)

    def _timed_run(self, prefill: PrefillLane | None, decode: DecodeLane | None) -> LaneLogits:
        began = self._clock()
        try:
            logits = self._runner.run(prefill, decode, self.on_start)
        finally:
            self.on_end()
        self.pacer.observe(
            decode_count=0 if decode is None else len(decode.embeds),
            chunk_tokens=0 if prefill is None else len(prefill.embeds),
            seconds=self._clock() - began,
        )
        return logits

    def _decode_lane(self, batch: list[Sequence]) -> DecodeLane:
        past = np.array([s.kv_length for s in batch], dtype=np.int32)
        deltas = np.array([s.request.position_delta for s in batch], dtype=np.int64)
        return DecodeLane(
            embeds=self._table.rows(np.array([s.token_ids[s.kv_length] for s in batch])),
            position_ids=past + deltas,
            past=past,
        )

    def _prefill_lane(self, chunk: PrefillChunk) -> PrefillLane:
        sequence = chunk.sequence
        embeds = self._table.rows(sequence.token_ids[chunk.start : chunk.stop])
        deepstack = scatter(embeds, chunk.start, _placed(sequence), self._level_count)
        assert sequence.slot is not None, "a chunk of a sequence without a slot"
        return PrefillLane(
            slot=sequence.slot,
            past=chunk.start,
            embeds=embeds,
            position_ids=sequence.position_ids(chunk.start, chunk.stop),
            deepstack=deepstack,
            logit_rows=np.array([len(embeds) - 1] if chunk.is_last else [], dtype=np.int64),
        )

    def _take_tokens(self, batch: list[Sequence], logits: FloatArray) -> list[Output]:
        """Samples one token per row, reports it, and ends sequences that are through."""
        now = self._clock()
        pairs = zip(batch, logits, strict=True)
        return [output for sequence, row in pairs for output in self._take_row(sequence, row, now)]

    def _take_row(self, sequence: Sequence, logits: FloatArray, now: float) -> list[Output]:
        try:
            token_id = sequence.sampler.choose(logits, sequence.request.constraint)
            token = None if token_id is None else _report(sequence, logits, token_id)
        except ServiceError as error:
            self.residency.end(sequence)
            return [Output(sequence, error)]
        except Exception:  # One row's sampling: it fails alone.
            self.residency.end(sequence)
            logger.exception("sampling failed, request_id=%s", sequence.request.request_id)
            return [Output(sequence, InternalError("internal error"))]
        if token is None:
            self.residency.end(sequence, is_sound=False)
            return [Output(sequence, _overflow(sequence))]
        return self._take_token(sequence, token, now)

    def _take_token(self, sequence: Sequence, token: Token, now: float) -> list[Output]:
        token_id = token.token_id
        if sequence.times.first_token is None:
            sequence.times.first_token = now
        sequence.times.last_token = now
        sequence.output_count += 1
        if token_id in sequence.request.stop_token_ids:
            return [self._finish(sequence, FinishReason.STOP, token_id)]
        sequence.append(token_id)
        sequence.sampler.observe(token_id)
        if sequence.request.constraint is not None:
            sequence.request.constraint.accept(token_id)
        outputs = [Output(sequence, token)]
        if sequence.output_count == sequence.request.max_tokens:
            outputs.append(self._finish(sequence, FinishReason.LENGTH, None))
        return outputs

    def _finish(
        self, sequence: Sequence, reason: FinishReason, stop_token_id: int | None
    ) -> Output:
        ended = completion(sequence, reason, stop_token_id)
        self.residency.end(sequence)
        return Output(sequence, ended)


def _placed(sequence: Sequence) -> list[PlacedFeatures]:
    pairs = zip(sequence.spans, sequence.features, strict=True)
    return [PlacedFeatures(span.offset, values) for span, values in pairs if values is not None]


def _report(sequence: Sequence, logits: FloatArray, token_id: int) -> Token:
    """A token with what its request wants to know; float32 [vocab]."""
    report = sequence.request.report
    return Token(
        token_id=token_id,
        logprobs=token_logprobs(logits, token_id, report.top_logprob_count)
        if report.logprobs
        else None,
        logits=logits.copy() if report.logits else None,
    )


def _overflow(sequence: Sequence) -> ServiceError:
    if sequence.spans:
        return InvalidRequest(
            "the features lead to non-finite logits: their values are too large",
            reason=Reason.NON_FINITE,
            param="features",
        )
    return InternalError("the model produced non-finite logits")
