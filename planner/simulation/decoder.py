"""A decoder: its own scheduler, residency, slots and pacing; what a step takes is a cost model's.

While nothing arrives and no prompt is there, the scheduler's next steps are all the same, so they
are taken together, at most `_MOST_STEPS`; what comes in between ends them at the next step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache
from decoder_service.cache.slots import SLOTS_PER_SEQUENCE, Slots
from decoder_service.sampling.parameters import SamplingParams
from decoder_service.schedule.pacing import ChunkPacer
from decoder_service.schedule.residency import Admission, Residency
from decoder_service.schedule.scheduler import Scheduler, StepPlan
from decoder_service.sequence.request import Request, Span
from decoder_service.sequence.sequence import Sequence, Status
from planner.costs import MOST_CONTEXT, Costs, DecoderLimits
from planner.simulation.clock import Clock
from planner.simulation.core import Core
from planner.simulation.outcome import Answer
from planner.simulation.spread import Spread
from planner.simulation.way import Way

# Steps taken together, for a step's time grows with its context.
_MOST_STEPS = 64
# Measurements of a run time after which the pacer has learned it.
_LEARNED_AFTER = 16
# Features are what the policy looks for, not at.
_FEATURES = np.zeros((1, 1, 1), dtype=np.float32)
_GREEDY = SamplingParams(temperature=0.0)

OtherWork = Callable[[], float | None]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """Some steps of one plan: when each of them ends, seconds, ascending."""

    plan: StepPlan
    ends: FloatArray


class Decoder:
    """One decoder process.

    Args:
        clock: The simulation's.
        costs: The machine's.
        spread: How far steps lie from their median.
        way: Of tokens to their clients.
        on_end: Told of an answer that ended.
        core: Where it runs, a step at a time; None: nobody shares a core, and steps are joined.
        other_work: What is computed on the same cores before the next step: seconds, or None.
        slowed: How many times as long a step takes that begins now, for what others compute.

    Attributes:
        residency: Who waits, who runs.
    """

    def __init__(
        self,
        clock: Clock,
        costs: Costs,
        *,
        spread: Spread,
        way: Way,
        on_end: Callable[[Answer], None],
        core: Core | None = None,
        other_work: OtherWork = lambda: None,
        slowed: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.residency = _residency(costs.decoder)
        self._busy_s = 0.0
        self._held_s = 0.0  # slots times seconds
        self._clock = clock
        self._costs = costs
        self._pacer = ChunkPacer(costs.decoder.mixed_chunk)
        self._spread = spread
        self._way = way
        self._on_end = on_end
        self._core = core
        self._other_work = other_work
        self._slowed = slowed
        self._answers: dict[Sequence, Answer] = {}
        self._complete: list[Sequence] = []  # their features came during a step
        self._step = 0
        self._began = 0.0
        self._steps: _Steps | None = None
        self._is_elsewhere = False  # other work is computed
        self._was_elsewhere = False  # just before: by turns
        self._version = 0  # of the end that is due

    @property
    def places_left(self) -> int:
        """Sequences it takes before it refuses."""
        limits = self._costs.decoder
        return limits.slots + limits.waiting - len(self._answers)

    def used_s(self) -> tuple[float, float]:
        """Seconds in which it computed so far, and in which slots were held, of all slots."""
        passed = 0.0
        if self._steps is not None:  # on a shared core a step lasts longer than it computes
            passed = min(self._clock.now, float(self._steps.ends[-1])) - self._began
        return self._busy_s + passed, self._held_s + passed * len(self.residency.running)

    def submit(self, answer: Answer) -> tuple[Sequence, Admission]:
        """Takes a request in and says what it needs; there must be a place."""
        sequence = Sequence(_request(answer), arrival=self._clock.now)
        sequence.token_ids[sequence.history_length :] = 0  # its output, token by token
        self._answers[sequence] = answer
        admission = self.residency.arrive(sequence)
        self.wake()
        return sequence, admission

    def give_features(self, sequence: Sequence) -> None:
        """The features of a sequence's image are there."""
        self._complete.append(sequence)
        self.wake()

    def cancel(self, sequence: Sequence) -> None:
        """A sequence whose features never come leaves; nothing of it was computed."""
        del self._answers[sequence]
        self.residency.end(sequence)
        self.wake()

    def wake(self) -> None:
        """Something has changed: begins a step, or ends several with the current one."""
        if self._is_elsewhere:
            return
        if self._steps is None:
            self._begin()
            return
        ends = self._steps.ends
        done = int(np.searchsorted(ends, self._clock.now)) + 1
        if done < len(ends):
            self._run(_Steps(plan=self._steps.plan, ends=ends[:done]))

    # -- A step ------------------------------------------------------------------------------

    def _begin(self) -> None:
        now = self._clock.now
        if not self._was_elsewhere and (seconds := self._other_work()) is not None:
            self._is_elsewhere = self._was_elsewhere = True
            self._busy_s += seconds
            self._clock.at(now + seconds, self._return)
            return
        self._was_elsewhere = False
        for sequence in self._complete:
            if sequence in self._answers:  # another of its conversation may have computed its KV
                sequence.set_features(0, _FEATURES, now)
        self._complete.clear()
        for sequence in self.residency.admit(now):
            sequence.served_step = self._step
        count = self.residency.slots.decoding_count
        mixed = self._pacer.chunk_tokens(count) if count else 0
        plan = self.residency.plan(self._step + 1, mixed, now)
        if not plan.is_empty:
            self._began = now
            self._run(self._planned(plan))

    def _return(self) -> None:
        self._is_elsewhere = False
        self._begin()
        if self._steps is None and not self._is_elsewhere:  # no step to take turns with
            self._begin()

    def _planned(self, plan: StepPlan) -> _Steps:
        """How often the plan is the next step's too, and when those end."""
        times = 1
        if not plan.prefill and not self._is_crowded(plan):
            left = min(s.request.max_tokens - s.output_count for s in plan.decode)
            times = min(left, _MOST_STEPS if self._core is None else 1)
            if times > 1:
                lengths = {s.held_slot: s.kv_length + times for s in plan.decode}
                self.residency.slots.budget.reserve(lengths)
        seconds = self._costs.steps.seconds(
            len(plan.decode),
            sum(s.history_length for s in plan.decode),
            [(chunk.start, chunk.stop) for chunk in plan.prefill],
        )
        factors = self._spread.take(times) * self._slowed()
        return _Steps(plan=plan, ends=self._began + seconds * factors.cumsum())

    def _is_crowded(self, plan: StepPlan) -> bool:
        """Whether running sequences may need more than the budget within the next steps."""
        tokens = sum(s.kv_length for s in self.residency.running)
        return tokens + _MOST_STEPS * len(plan.decode) > self.residency.slots.budget.tokens

    def _run(self, steps: _Steps) -> None:
        self._version += 1
        self._steps, version = steps, self._version
        last = float(steps.ends[-1])
        if self._core is None:
            self._clock.at(last, lambda: self._end(version))
        else:
            self._core.run(last - self._began, lambda: self._end(version))

    def _end(self, version: int) -> None:
        if version != self._version or self._steps is None:
            return
        steps, self._steps = self._steps, None
        plan, count, now = steps.plan, len(steps.ends), self._clock.now
        computed = float(steps.ends[-1]) - self._began
        self._busy_s += computed
        self._held_s += computed * len(self.residency.running)
        self._step += count
        self._learn(plan, (now - self._began) / count, count)
        for sequence in plan.decode:
            self.residency.slots.extend(sequence, sequence.history_length + count - 1)
        for chunk in plan.prefill:
            chunk.sequence.served_step = self._step
            self.residency.prefilled(chunk.sequence, chunk.stop)
        answers = [self._answers[sequence] for sequence in plan.decode]
        self._way.tokens(answers, self._began, steps.ends)
        for sequence in plan.decode:
            self._take(sequence, count)
        for chunk in plan.prefill:
            if chunk.is_last:
                self._take_first(chunk.sequence)
        self._begin()

    def _learn(self, plan: StepPlan, seconds: float, count: int) -> None:
        tokens = sum(chunk.stop - chunk.start for chunk in plan.prefill)
        for _ in range(min(count, _LEARNED_AFTER)):
            self._pacer.observe(decode_count=len(plan.decode), chunk_tokens=tokens, seconds=seconds)

    # -- Tokens ------------------------------------------------------------------------------

    def _take(self, sequence: Sequence, tokens: int) -> None:
        sequence.output_count += tokens
        sequence.history_length += tokens
        if sequence.output_count == sequence.request.max_tokens:
            self._finish(sequence)

    def _take_first(self, sequence: Sequence) -> None:
        """The token behind a prompt, or behind what was computed again after a preemption."""
        self._way.first(self._answers[sequence])
        self._take(sequence, 1)
        if sequence.status is Status.PREFILLING:
            self.residency.slots.promote(sequence)
            sequence.status = Status.DECODING

    def _finish(self, sequence: Sequence) -> None:
        answer = self._answers.pop(sequence)
        self.residency.end(sequence)
        self._on_end(answer)


def _residency(limits: DecoderLimits) -> Residency:
    cache = KvCache(
        layer_count=0,  # no layers, no memory: only what is where counts
        slot_count=SLOTS_PER_SEQUENCE * limits.slots,
        head_count=1,
        max_length=limits.max_context,
        head_dim=1,
    )
    return Residency(
        Slots(cache, token_budget=max(limits.kv_tokens, limits.max_context)),
        Scheduler(prefill_chunk_tokens=limits.prefill_chunk),
        max_sequences=limits.slots,
    )


def _request(answer: Answer) -> Request:
    """The request as a decoder gets it: conversations agree in their image, or half their text."""
    arrival = answer.arrival
    shared = arrival.image_tokens or arrival.text_tokens // 2
    length = arrival.image_tokens + arrival.text_tokens
    name = b"%d" % arrival.conversation
    ids = np.zeros(length, dtype=np.int32)
    ids[shared:] = arrival.number
    return Request(
        request_id="",
        input_ids=ids,
        position_ids=_positions(length),
        position_delta=0,
        spans=(Span(offset=0, length=shared, digest=name),) if arrival.image_tokens else (),
        sampling=_GREEDY,
        max_tokens=arrival.output_tokens,
        cache_salt=name,
    )


_ALL_POSITIONS = np.tile(np.arange(MOST_CONTEXT, dtype=np.int32), (3, 1))


def _positions(length: int) -> npt.NDArray[np.int32]:
    """Positions 0, 1, ... on all axes, int32 [3, length]; a view of what all prompts share."""
    return _ALL_POSITIONS[:, :length]
