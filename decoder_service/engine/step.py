"""Running one step: rows of sequences through the model, and back as tokens.

Synchronous and single-threaded: the engine's thread calls it, tests call it directly.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import numpy.typing as npt

from decoder_service.engine.inputs import StepInputs
from decoder_service.engine.outputs import Output, StepOutputs
from decoder_service.model.batch import Runner, Segments
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Residency
from decoder_service.schedule.scheduler import PrefillChunk, StepPlan
from decoder_service.schedule.speculation import Speculation
from decoder_service.sequence.sequence import Status

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float32]
Computing = Callable[[], AbstractContextManager[None]]

_NO_DRAFT = np.array([], dtype=np.int32)


class StepExecutor:
    """Runs plans and keeps sequences and slots in step with them.

    Args:
        runner: Over the slots' KV cache.
        table: Embeddings of tokens.
        residency: Whose sequences and slots they are.
        level_count: DeepStack levels.
        pacer: Learns from run times.
        speculation: Drafts what may follow while one sequence decodes.
        clock: Seconds.
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
        self._speculation = speculation
        self._runner = runner
        self._inputs = StepInputs(table, level_count)
        self._outputs = StepOutputs(residency)
        self._clock = clock

    def run(self, plan: StepPlan, step: int, computing: Computing = nullcontext) -> list[Output]:
        """Runs a whole step: all its chunks and decoding sequences, and a draft, in one run.

        Args:
            plan: What to run; not empty.
            step: Its number.
            computing: Entered while the model computes, which leaves the interpreter to others.
        """
        draft = self._draft(plan)
        batch = [self._inputs.prefill(chunk) for chunk in plan.prefill]
        if len(draft):
            batch.append(self._inputs.verify(plan.decode[0], draft))
        elif plan.decode:
            batch.append(self._inputs.decode(plan.decode))
        began = self._clock()
        for chunk in plan.prefill:
            if chunk.sequence.times.first_prefill is None:
                chunk.sequence.times.first_prefill = began
        try:
            with_logits: list[FloatArray | None] = [*self._compute(batch, computing)]
        except Exception:  # A prompt fails alone; what decodes fails the engine.
            if not plan.prefill:
                raise
            logger.exception("a step with prompts failed; its parts run one by one")
            with_logits = self._compute_apart(plan, batch, computing)
        else:
            self._observe(plan, draft, self._clock() - began)
        return self._settle(plan, draft, with_logits, began, step)

    def _draft(self, plan: StepPlan) -> npt.NDArray[np.int32]:
        """A draft where it costs nobody anything: while one sequence decodes and nothing else."""
        if len(plan.decode) != 1 or plan.prefill:
            return _NO_DRAFT
        (sequence,) = plan.decode
        room = sequence.request.max_tokens - sequence.output_count - 1
        draft = self._speculation.draft(sequence, room)
        length = sequence.history_length + len(draft)
        if len(draft) and not self.residency.slots.budget.reserve({sequence.held_slot: length}):
            return _NO_DRAFT
        return draft

    def _compute(self, batch: list[Segments], computing: Computing) -> Iterator[FloatArray]:
        """Logits of each part of a batch; they hold until the next run."""
        bound = self._runner.bind(batch)
        with computing():
            logits = bound.run()
        return _divided(logits, batch)

    def _compute_apart(
        self, plan: StepPlan, batch: list[Segments], computing: Computing
    ) -> list[FloatArray | None]:
        """Logits of each part, run again by itself; None for a prompt that fails."""
        found: list[FloatArray | None] = []
        for chunk, part in zip(plan.prefill, batch, strict=False):
            try:
                (logits,) = self._compute([part], computing)
                found.append(logits.copy())
            except Exception:  # One sequence's prompt: its slot alone was bound.
                logger.exception("prefill failed, request_id=%s", chunk.sequence.request.request_id)
                found.append(None)
        if plan.decode:
            found += self._compute([batch[-1]], computing)
        return found

    def _observe(self, plan: StepPlan, draft: npt.NDArray[np.int32], seconds: float) -> None:
        if len(plan.decode) == 1 and not plan.prefill:
            self._speculation.observe(1 + len(draft), seconds)
        if not len(draft):
            self.pacer.observe(
                decode_count=len(plan.decode),
                chunk_tokens=sum(chunk.stop - chunk.start for chunk in plan.prefill),
                seconds=seconds,
            )

    def _settle(
        self,
        plan: StepPlan,
        draft: npt.NDArray[np.int32],
        logits: list[FloatArray | None],
        began: float,
        step: int,
    ) -> list[Output]:
        """Notes what was computed and takes the tokens that follow."""
        now = self._clock()
        # All of it before anything moves between slots: what is not noted is not kept.
        for sequence in plan.decode:
            self.residency.slots.extend(sequence, sequence.history_length)
        for chunk, rows in zip(plan.prefill, logits, strict=False):
            if rows is not None:
                chunk.sequence.times.prefill_s += now - began
                chunk.sequence.served_step = step
                self.residency.prefilled(chunk.sequence, chunk.stop)
        outputs = self._settle_decode(plan, draft, logits[-1], now) if plan.decode else []
        for chunk, rows in zip(plan.prefill, logits, strict=False):
            outputs += self._settle_chunk(chunk, rows, now)
        return outputs

    def _settle_decode(
        self,
        plan: StepPlan,
        draft: npt.NDArray[np.int32],
        logits: FloatArray | None,
        now: float,
    ) -> list[Output]:
        assert logits is not None, "what decodes has been computed"
        if len(draft):
            (sequence,) = plan.decode
            outputs, accepted = self._outputs.take_draft(sequence, draft, logits, now)
            self._speculation.settle(sequence, len(draft), accepted)
            return outputs
        pairs = zip(plan.decode, logits, strict=True)
        return [output for one, row in pairs for output in self._outputs.take(one, row, now)]

    def _settle_chunk(
        self, chunk: PrefillChunk, logits: FloatArray | None, now: float
    ) -> list[Output]:
        sequence = chunk.sequence
        if logits is None:
            return [self._outputs.fail(sequence)]
        if not len(logits):  # not the last chunk
            return []
        outputs = self._outputs.take(sequence, logits[0], now)
        if sequence.status is Status.PREFILLING:
            self.residency.slots.promote(sequence)
            sequence.status = Status.DECODING
        return outputs


def _divided(logits: FloatArray, batch: list[Segments]) -> Iterator[FloatArray]:
    """The rows of each part."""
    first = 0
    for part in batch:
        last = first + len(part.logit_rows)
        yield logits[first:last]
        first = last
