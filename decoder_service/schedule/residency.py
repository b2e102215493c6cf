"""Who waits, who runs, and whose KV stays: admission by slots and KV budget, preemption, pins.

No thread, no model and no clock: the engine's thread calls it between runs, tests call it
directly. What makes it safe:

- KV that cannot be computed again, because the features it came from are gone or were never
  sent, is a sequence's *anchor*. The anchors of all sequences together leave `max_length` tokens
  of the budget free, so any one sequence can always run to its end; whoever would break that
  keeps its features, or is asked for them.
- Slots are `SLOTS_PER_SEQUENCE` times as many as sequences may run: enough for the anchors of
  `max_sequences` waiting sequences and of those that were preempted, which are never more than
  twice `max_sequences` together with the running ones.
"""

from dataclasses import dataclass

from decoder_service.cache.slots import SLOTS_PER_SEQUENCE, Slots
from decoder_service.schedule.scheduler import PrefillChunk, Scheduler, StepPlan
from decoder_service.sequence.sequence import Sequence, Status

# Tokens a sequence is expected to grow by, at least, before another must make room for it.
_HEADROOM = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What is there for a sequence when it arrives.

    Attributes:
        cached_tokens: Leading prompt tokens whose KV is there.
        needed_spans: Spans whose features must come.
    """

    cached_tokens: int
    needed_spans: tuple[int, ...]


class Residency:
    """Every sequence in flight and the slots they share.

    Args:
        slots: At least `SLOTS_PER_SEQUENCE` for each of `max_sequences`.
        scheduler: The policy.
        max_sequences: Most that run at once.
    """

    def __init__(self, slots: Slots, scheduler: Scheduler, *, max_sequences: int) -> None:
        assert len(slots.held) >= SLOTS_PER_SEQUENCE * max_sequences, "too few slots"
        self.slots = slots
        self.scheduler = scheduler
        self.max_sequences = max_sequences
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemption_count = 0

    def arrive(self, sequence: Sequence) -> Admission:
        """Takes a sequence in and says which features it needs.

        KV of images that are not needed is pinned until the sequence has a slot.
        """
        match = self.slots.prefixes.best_match(sequence)
        length = 0 if match is None else match.length
        promised = max((span.end for span in sequence.spans if span.end <= length), default=0)
        if match is not None and promised:
            others = sum(s.anchor > 0 and not s.was_preempted for s in self.waiting)
            if others < self.max_sequences and self._may_anchor(sequence, promised):
                sequence.anchor = promised
                self.slots.prefixes.pin(match.held, sequence, promised)
            else:
                length = sequence.spans[0].offset
        self.waiting.append(sequence)
        spans = enumerate(sequence.spans)
        needed = tuple(index for index, span in spans if span.end > sequence.anchor)
        sequence.missing_features = len(needed)
        cached = min(length, sequence.request.prompt_length)  # a match may end in the output
        return Admission(cached_tokens=cached, needed_spans=needed)

    def admit(self, now: float) -> list[Sequence]:
        """Gives slots to waiting sequences, most urgent first; may take them from others."""
        granted = []
        while self.waiting and (sequence := self._next(now)) is not None:
            victims = self._victims(sequence, now)
            if victims is None:
                break
            for victim in victims:
                self.preempt(victim)
            self._grant(sequence)
            granted.append(sequence)
        return granted

    @property
    def has_work(self) -> bool:
        """Whether a step can be made now; sequences that only wait make none."""
        return self.slots.decoding_count > 0 or any(s.prefillable_count > 0 for s in self.running)

    def plan(self, step: int, mixed_tokens: int, now: float) -> StepPlan:
        """The next step, for which there is room; makes it if it must.

        Args:
            step: Its number.
            mixed_tokens: Most prompt tokens beside decoding sequences.
            now: `time.monotonic` seconds.
        """
        while True:
            plan = self.scheduler.plan(self.running, step, mixed_tokens)
            fitted = self._fit(plan)
            if fitted is not None:
                return fitted
            self.preempt(self.scheduler.least_urgent(self.running, now))

    def preempt(self, sequence: Sequence) -> None:
        """Takes a running sequence's slot; what it has stays cached as long as it may."""
        if sequence.anchor:
            self.slots.prefixes.pin_own(sequence, sequence.anchor)
        self.slots.release(sequence, sequence.kv_length)
        sequence.status = Status.WAITING
        sequence.was_preempted = True
        self.running.remove(sequence)
        self.waiting.append(sequence)
        self.preemption_count += 1

    def refused(self, now: float) -> Sequence | None:
        """Who gives its place in the full queue to a tenant with fewer; see `Scheduler.refused`."""
        untouched = [sequence for sequence in self.waiting if not sequence.was_preempted]
        return self.scheduler.refused(untouched, (*self.running, *self._preempted()), now)

    def end(self, sequence: Sequence, *, is_sound: bool = True) -> None:
        """Forgets a sequence; its KV may be of use to others if it is sound."""
        if sequence.slot is not None:
            self.slots.release(sequence, sequence.shareable_length if is_sound else 0)
            self.running.remove(sequence)
        else:
            self.slots.prefixes.unpin(sequence)
            self.waiting.remove(sequence)
        sequence.status = Status.FINISHED
        sequence.anchor = 0
        sequence.features = []

    def prefilled(self, sequence: Sequence, length: int) -> None:
        """Notes KV of a history's first tokens, and drops features that are not needed for good."""
        self.slots.extend(sequence, length)
        for index, span in enumerate(sequence.spans):
            if span.end > length:
                break
            if sequence.features[index] is not None and self._may_anchor(sequence, span.end):
                sequence.anchor = max(sequence.anchor, span.end)
            if span.end <= sequence.anchor:
                sequence.features[index] = None

    # -- Inside ------------------------------------------------------------------------------

    def _may_anchor(self, sequence: Sequence, length: int) -> bool:
        others = sum(s.anchor for s in (*self.waiting, *self.running) if s is not sequence)
        return others + length <= self.slots.budget.tokens - self.slots.max_length

    def _preempted(self) -> list[Sequence]:
        return [sequence for sequence in self.waiting if sequence.was_preempted]

    def _next(self, now: float) -> Sequence | None:
        preempted = self._preempted()
        is_full = len(preempted) >= self.max_sequences
        candidates = preempted if is_full else self.waiting
        return self.scheduler.most_urgent(candidates, self.running, now)

    def _victims(self, sequence: Sequence, now: float) -> list[Sequence] | None:
        """Who must go for a sequence to get a slot; None when it cannot."""
        victims: list[Sequence] = []
        if self._fits(sequence, victims):
            return victims
        room = self.max_sequences - len(self._preempted())
        for victim in self.scheduler.yielding(self.running, sequence, now)[: max(0, room)]:
            victims.append(victim)
            if self._fits(sequence, victims):
                return victims
        return None

    def _fits(self, sequence: Sequence, victims: list[Sequence]) -> bool:
        running = [other for other in self.running if other not in victims]
        if not running:
            return True
        waiting = [other for other in (*self.waiting, *victims) if other is not sequence]
        tokens = sum(_demand(other) for other in (*running, sequence))
        tokens += sum(other.anchor for other in waiting)
        return len(running) < self.max_sequences and tokens <= self.slots.budget.tokens

    def _grant(self, sequence: Sequence) -> None:
        match = self.slots.prefixes.best_match(sequence)
        self.slots.grant(sequence, match)
        assert sequence.kv_length >= sequence.anchor, "pinned KV was lost"
        if not sequence.was_preempted:
            sequence.cached_tokens = min(sequence.kv_length, sequence.request.prompt_length)
        sequence.was_preempted = False
        sequence.status = Status.PREFILLING
        self.waiting.remove(sequence)
        self.running.append(sequence)

    def _fit(self, plan: StepPlan) -> StepPlan | None:
        """As much of a plan as there is room for; None when that is nothing, or not all decode."""
        lengths = {s.held_slot: s.kv_length + 1 for s in plan.decode}
        if not self.slots.budget.reserve(lengths):
            return None
        chunks: list[PrefillChunk] = []
        for chunk in plan.prefill:
            fitted = self._fit_chunk(chunk, lengths)
            if fitted is None:
                break
            chunks.append(fitted)
        if plan.prefill and not chunks and not plan.decode:
            return None
        return StepPlan(plan.decode, tuple(chunks))

    def _fit_chunk(self, chunk: PrefillChunk, lengths: dict[int, int]) -> PrefillChunk | None:
        slot, count = chunk.sequence.held_slot, chunk.stop - chunk.start
        while count > 0:
            wanted = {**lengths, slot: chunk.start + count}
            if self.slots.budget.reserve(wanted):
                lengths.update(wanted)
                return PrefillChunk(chunk.sequence, chunk.start, chunk.start + count)
            count //= 2
        return None


def _demand(sequence: Sequence) -> int:
    most = sequence.request.prompt_length + sequence.request.max_tokens
    return min(most, sequence.history_length + _HEADROOM)
